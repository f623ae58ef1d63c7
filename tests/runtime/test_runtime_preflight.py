"""What is checked before time is spent: mounts, machine, disk, model, data sets."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from runtime_tiny import SOURCE, Events, parameters, read_result, source

from kchain.runtime import preflight, session
from kchain.runtime.failure import Stop
from kchain.runtime.paths import session_paths

T4 = {"name": "NvidiaTeslaT4", "gpus": 2, "memory": 15_633_612_144, "capability": [7, 5]}
CPU = {"name": "cpu", "gpus": 0, "memory": 0, "capability": [0, 0]}


@pytest.mark.parametrize(
    ("kind", "ref", "new", "old"),
    [
        ("dataset", "me/set", "datasets/me/set", "set"),
        ("kernel", "me/one", "notebooks/me/one", "one"),
        ("model", SOURCE, f"models/{SOURCE}", "qwen/transformers/nano/1"),
    ],
)
def test_an_input_is_found_in_both_of_kaggles_layouts(tmp_path: Path, kind: str, ref: str, new: str, old: str) -> None:
    os.environ["KCHAIN_KAGGLE_ROOT"] = str(tmp_path)
    paths = session_paths()
    with pytest.raises(Stop) as caught:
        paths.mount(kind, ref)
    assert str(tmp_path / "input" / new) in caught.value.reason
    assert str(tmp_path / "input" / old) in caught.value.reason
    (tmp_path / "input" / old / "what is in it").mkdir(parents=True)
    assert paths.mount(kind, ref) == tmp_path / "input" / old
    (tmp_path / "input" / new / "what is in it").mkdir(parents=True)
    assert paths.mount(kind, ref) == tmp_path / "input" / new


def test_an_input_that_kaggle_mounted_empty_is_no_input_and_the_cure_says_push_again(tmp_path: Path) -> None:
    os.environ["KCHAIN_KAGGLE_ROOT"] = str(tmp_path)
    (tmp_path / "input" / "notebooks" / "me" / "one").mkdir(parents=True)
    with pytest.raises(Stop, match="kernel me/one is not mounted") as caught:
        session_paths().mount("kernel", "me/one")
    assert "push again" in caught.value.cure


@pytest.mark.parametrize(("processes", "visible"), [(1, "0"), (2, "0,1"), (4, "0,1,2,3")])
def test_every_training_process_has_its_gpu_and_no_other_is_visible(processes: int, visible: str) -> None:
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    preflight.choose_device(processes)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


@pytest.mark.parametrize(("processes", "visible"), [(1, "3"), (2, "3,5"), (4, "3,5")])
def test_the_devices_that_the_server_gave_are_kept(processes: int, visible: str) -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "3,5"
    preflight.choose_device(processes)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def test_a_phase_for_the_cpu_sees_no_gpu() -> None:
    os.environ["CUDA_VISIBLE_DEVICES"] = "0,1"
    preflight.choose_device(0)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""


def gpu(name: str = "Tesla T4", total: int = 15_828_320_256, free: int | None = None, **changes: Any) -> preflight.Gpu:
    """A T4 that nobody else uses, but for what is changed."""
    return preflight.Gpu(name, changes.get("capability", (7, 5)), total, total - 3 * 10**8 if free is None else free)


def test_a_missing_gpu_stops_the_session() -> None:
    with pytest.raises(Stop, match="NvidiaTeslaT4 was asked for, and torch sees no GPU") as caught:
        preflight.check_gpus(T4, [], [])
    assert "accelerator" in caught.value.cure


def test_a_machine_without_a_gpu_is_noticed_in_preflight(kaggle: Path) -> None:
    """The real thing: torch is asked, in a process of its own."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    run = session.start(parameters(accelerator=T4, training__precision="fp16"), "b" * 64)
    with pytest.raises(Stop, match="torch sees no GPU"):
        run.preflight()
    assert preflight.others() == []


def test_an_older_gpu_than_asked_for_stops_the_session() -> None:
    with pytest.raises(Stop, match=r"P100.* has compute capability \(6, 0\)"):
        preflight.check_gpus(T4, [gpu("Tesla P100-PCIE-16GB", 17_000_000_000, capability=(6, 0))], [])


def test_a_smaller_gpu_than_planned_for_stops_the_session_also_if_it_is_the_second() -> None:
    with pytest.raises(Stop, match="8000000000 bytes of memory; the plan needs"):
        preflight.check_gpus(T4, [gpu(), gpu("Quadro RTX 4000", 8_000_000_000)], [])


def test_a_gpu_that_others_use_stops_the_session_and_says_who() -> None:
    taken = gpu(free=9_000_000_000)
    with pytest.raises(Stop, match=r"only 9000000000 of .* Tesla T4 are free: .* \(4711, python, 6000 MiB\)") as caught:
        preflight.check_gpus(T4, [taken], ["4711, python, 6000 MiB"])
    assert "end what else runs" in caught.value.cure


def test_a_gpu_that_others_use_a_little_passes_with_a_warning(events: Events) -> None:
    preflight.check_gpus(T4, [gpu()], ["4711, python, 100 MiB"])
    assert "4711, python" in events()[-1]["message"]


def test_the_gpu_asked_for_passes_and_a_newer_one_passes_with_a_warning(events: Events) -> None:
    preflight.check_gpus(T4, [gpu(), gpu()], [])
    assert [event["event"] for event in events()] == ["gpu", "gpu"]
    preflight.check_gpus(T4, [gpu("NVIDIA L4", 23_000_000_000, capability=(8, 9))], [])
    assert [event["event"] for event in events()] == ["gpu", "warning"]


@pytest.mark.parametrize(
    ("wanted", "found", "accumulation", "processes"),
    [(2, 2, 8, 2), (1, 2, 7, 1), (2, 1, 8, 1), (4, 3, 8, 2), (3, 2, 9, 1), (2, 0, 8, 2)],
)
def test_fewer_gpus_than_planned_train_with_fewer_processes_and_a_warning(
    wanted: int, found: int, accumulation: int, processes: int, events: Events
) -> None:
    assert preflight.processes(wanted, found, accumulation) == processes
    warnings = [event["message"] for event in events()]
    assert bool(warnings) == (0 < found < wanted)
    assert all(f"{wanted} GPUs were planned and {found} found" in message for message in warnings)


@pytest.mark.parametrize(
    ("precision", "accelerator", "reason"),
    [("bf16", T4, "NvidiaTeslaT4 has no bf16"), ("fp16", CPU, "fp16 training needs a GPU"), ("bf16", CPU, "no bf16")],
)
def test_a_precision_that_the_machine_does_not_have_is_refused(
    precision: str, accelerator: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Stop, match=reason):
        preflight.check_precision(precision, accelerator)


def test_legal_precisions_pass() -> None:
    preflight.check_precision("fp16", T4)
    preflight.check_precision("fp32", CPU)
    preflight.check_precision("bf16", {**T4, "name": "NvidiaL4", "capability": [8, 9]})


@pytest.mark.parametrize(("quantization", "optimizer"), [("nf4", "adamw_torch"), ("none", "paged_adamw_8bit")])
def test_bitsandbytes_is_asked_for_by_4_bits_and_by_an_8_bit_optimizer(
    monkeypatch: pytest.MonkeyPatch, quantization: str, optimizer: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(Stop, match="need bitsandbytes, which is not installed"):
        preflight.check_bitsandbytes(quantization, optimizer)
    preflight.check_bitsandbytes("none", "adamw_torch")


def test_a_full_disk_is_noticed_before_the_merge(tmp_path: Path) -> None:
    preflight.check_disk(tmp_path, 0)
    with pytest.raises(Stop, match="bytes free"):
        preflight.check_disk(tmp_path, 10**18)


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    """A copy of the base model to damage."""
    return Path(shutil.copytree(base, tmp_path / "model"))


def test_a_sound_model_passes(model: Path) -> None:
    preflight.check_model(model)


def test_a_model_whose_json_is_really_gzip_is_refused_in_words(model: Path) -> None:
    file = model / "tokenizer_config.json"
    file.write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(Stop, match=r"tokenizer_config\.json is gzip"):
        preflight.check_model(model)


def test_a_model_quantized_on_disk_is_refused(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(Stop, match="quantized on disk"):
        preflight.check_model(model)


def test_a_pickled_model_is_refused(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    with pytest.raises(Stop, match="no safetensors file"):
        preflight.check_model(model)


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stop, match=r"no config\.json"):
        preflight.check_model(tmp_path)


def test_a_model_that_is_not_mounted_ends_the_session_in_preflight(kaggle: Path) -> None:
    run = session.start(parameters(model={"source": "a/b/c/d/1"}), "b" * 64)
    with pytest.raises(Stop, match="the model a/b/c/d/1 is not mounted"):
        run.preflight()
    assert read_result(kaggle)["reason"].startswith("preflight: the model a/b/c/d/1")


def test_a_data_set_that_is_not_mounted_ends_the_session_in_preflight_unless_it_is_optional(kaggle: Path) -> None:
    absent = source(kind="dataset", dataset="someone/shell-set")
    with pytest.raises(Stop, match="the dataset someone/shell-set is not mounted"):
        session.start(parameters(data__sources=[absent]), "b" * 64).preflight()
    session.start(parameters(data__sources=[{**absent, "optional": True}]), "b" * 64).preflight()


# Adapters of the lineage. Each test changes one thing of a kernel output that would pass.


def test_a_file_that_is_not_in_its_data_set_ends_the_session_in_preflight(kaggle: Path) -> None:
    (kaggle / "input" / "shell-set").mkdir()
    (kaggle / "input" / "shell-set" / "Train.csv").write_text("ask,answer\n")
    misnamed = source(kind="dataset", dataset="someone/shell-set", file="train.csv")
    with pytest.raises(Stop, match=r"no file .*/train\.csv; there is Train\.csv"):
        session.start(parameters(data__sources=[misnamed]), "b" * 64).preflight()
    session.start(parameters(data__sources=[{**misnamed, "file": None}]), "b" * 64).preflight()


def test_the_gpus_are_looked_at_by_a_process_of_its_own() -> None:
    assert len(preflight.look()) == torch.cuda.device_count()
