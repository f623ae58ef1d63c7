"""The demo as a user runs it: four phase files in, four verified adapters out, and nothing pushed twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from e2e_tools import accepted_versions, kchain, started
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from kchain.runtime.adapters import Adapter
from kchain.runtime.merge import merge
from kchain.server import launch

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

PHASES = ["phase1", "phase2", "phase3", "phase4"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a finished demo and what was printed."""
    folder = tmp_path_factory.mktemp("demo")
    done = started(folder, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    yield folder / "kchain-demo", done.stdout
    launch.stop(folder / "kchain-demo" / ".kchain" / "local")


def result(project: Path, phase: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((project / "runs" / "local" / phase / "v1" / "kchain-result.json").read_text())
    return read


def test_every_phase_is_trained_verified_and_told(demo: tuple[Path, str]) -> None:
    project, printed = demo
    for phase in PHASES:
        assert result(project, phase)["status"] == "complete"
        assert phase in printed
    assert "151645" in printed
    rows = json.loads(kchain(project, "status", "--json").stdout)
    assert [row["state"] for row in rows["phases"]] == ["done"] * 4
    assert [row["version"] for row in rows["phases"]] == [1] * 4


def test_each_phase_was_built_on_all_before_it_by_hash(demo: tuple[Path, str]) -> None:
    project, _ = demo
    hashes = [result(project, phase)["adapter"]["sha256"] for phase in PHASES]
    for index, phase in enumerate(PHASES):
        assert [entry["sha256"] for entry in result(project, phase)["lineage"]] == hashes[:index]
    assert len(set(hashes)) == 4


def test_the_loss_of_every_phase_really_falls(demo: tuple[Path, str]) -> None:
    project, _ = demo
    for phase in PHASES:
        metrics = result(project, phase)["metrics"]
        assert metrics["loss_last"] < 0.7 * metrics["loss_first"], (phase, metrics)


def test_the_demo_tells_what_each_phase_learned_and_what_it_forgot(demo: tuple[Path, str]) -> None:
    project, printed = demo
    assert "Validation loss before -> after each phase" in printed
    page = project / "pages" / "chain.html"
    rows = json.loads(kchain(project, "status", "--json", "--html", str(page)).stdout)["phases"]
    for number, row in enumerate(rows):
        assert [split["phase"] for split in row["evaluation"]["splits"]] == PHASES[: number + 1]
        assert row["metrics"]["eval_loss"] < row["metrics"]["eval_loss_before"]
        assert len(row["evaluation"]["samples"]) == 4
    assert rows[0]["metrics"]["eos_rate"] > rows[0]["metrics"]["eos_rate_before"] == 0.0
    assert rows[1]["metrics"]["forgotten"] > 0, "random weights keep nothing that is not asked for again"
    text = page.read_text(encoding="utf-8")
    assert text.count('<a href="http') == 4, "every kernel can be looked at"
    assert "4 of 4 phases done" in text


def test_running_the_demo_again_pushes_nothing_and_says_so(demo: tuple[Path, str]) -> None:
    project, _ = demo
    again = kchain(project.parent, "demo")
    assert again.returncode == 0, again.stderr
    assert "nothing was pushed" in again.stdout
    assert accepted_versions(project) == dict.fromkeys(PHASES, 1)
    assert all(row["version"] == 1 for row in json.loads(kchain(project, "status", "--json").stdout)["phases"])


def test_the_plain_kaggle_command_sees_the_same_kernels(demo: tuple[Path, str], tmp_path: Path) -> None:
    project, _ = demo
    endpoint = launch.ensure_running(project / ".kchain" / "local")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "KAGGLE_USERNAME": "demo",
        "KAGGLE_KEY": endpoint.key,
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        "HTTP_PROXY": endpoint.url,
    }
    kernel = json.loads((project / "build" / "local" / "phase4" / "kernel-metadata.json").read_text())["id"]
    kaggle = Path(sys.executable).with_name("kaggle")
    done = subprocess.run(
        [kaggle, "kernels", "status", kernel], env=environment, capture_output=True, text=True, timeout=60
    )
    assert "KernelWorkerStatus.COMPLETE" in done.stdout, done.stdout + done.stderr


def base_model(project: Path) -> Path:
    """The folder in which the server keeps the demo's base model."""
    return next(path.parent for path in (project / ".kchain" / "local").rglob("model.safetensors"))


def merged_independently(base: Path, adapters: list[Path], to: Path) -> Path:
    """The base with every adapter added: plain fp32 matrices, rounded to fp16 once. No code of kchain."""
    weights = {name: tensor.float() for name, tensor in load_file(base / "model.safetensors").items()}
    for adapter in adapters:
        config = json.loads((adapter / "adapter_config.json").read_text())
        update = load_file(adapter / "adapter_model.safetensors")
        for name in (name for name in update if name.endswith("lora_A.weight")):
            target = name.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
            up = update[name.replace("lora_A", "lora_B")].float()
            weights[target] += config["lora_alpha"] / config["r"] * (up @ update[name].float())
    to.mkdir()
    save_file({name: tensor.half() for name, tensor in weights.items()}, to / "model.safetensors", {"format": "pt"})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (to / name).write_bytes((base / name).read_bytes())
    return to


def adapters(project: Path, phases: list[str]) -> list[Path]:
    return [project / "runs" / "local" / phase / "v1" / "adapter" for phase in phases]


def test_the_last_adapter_loads_with_plain_peft_and_gives_the_logits_of_its_training(
    demo: tuple[Path, str], tmp_path: Path
) -> None:
    project, _ = demo
    base = merged_independently(base_model(project), adapters(project, PHASES[:3]), tmp_path / "merged")
    last = adapters(project, PHASES)[3]
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, last).eval()
    probe = result(project, "phase4")["probe"]
    with torch.no_grad():
        logits = model(torch.tensor([probe["prompt_ids"]])).logits[0, -1]
    assert int(logits.argmax()) == probe["argmax"]
    np.testing.assert_allclose(logits[: len(probe["logits"])].numpy(), probe["logits"], atol=2e-3)
    assert AutoTokenizer.from_pretrained(last).pad_token_id == 151645


def test_the_merged_base_equals_an_independent_merge_in_fp32(demo: tuple[Path, str], tmp_path: Path) -> None:
    project, _ = demo
    folders = adapters(project, PHASES[:3])
    independent = merged_independently(base_model(project), folders, tmp_path / "independent")
    ours = tmp_path / "ours"
    found_adapters = [Adapter(folder.name, "kernel", "", folder, "", 0) for folder in folders]
    merge(base_model(project), found_adapters, result(project, "phase4")["lora"], ours)
    expected = load_file(independent / "model.safetensors")
    found = {name: tensor for path in ours.glob("*.safetensors") for name, tensor in load_file(path).items()}
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert found[name].dtype == torch.float16
        torch.testing.assert_close(found[name].float(), tensor.float(), rtol=1e-3, atol=1e-6)
