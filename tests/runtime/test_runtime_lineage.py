"""Every adapter that a phase builds on is checked before anything is merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from runtime_tiny import EOS, ancestor, mount, second_phase
from safetensors.torch import load_file, save_file

from kchain.runtime import adapters, session
from kchain.runtime.contract import LineageEntry
from kchain.runtime.failure import Stop
from kchain.runtime.files import hash_file
from kchain.runtime.paths import session_paths


@pytest.fixture
def output(kaggle: Path, two_phases: tuple[Path, Path]) -> Path:
    """A copy of the first phase's output, mounted as kernel me/one."""
    copy = Path(shutil.copytree(two_phases[0], kaggle.parent / "output"))
    mount(kaggle, "notebooks/me/one", copy)
    return copy


def change_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def find(**changes: Any) -> list[adapters.Adapter]:
    return adapters.find(session_paths(), second_phase(**changes))


def test_an_untouched_adapter_is_accepted_with_its_hash(output: Path) -> None:
    (adapter,) = find()
    assert adapter.sha256 == json.loads((output / "kchain-result.json").read_text())["adapter"]["sha256"]
    assert adapter.bytes == (output / "adapter" / "adapter_model.safetensors").stat().st_size


def test_an_adapter_changed_after_its_session_is_refused(output: Path) -> None:
    file = output / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    next(iter(weights.values()))[0, 0] += 1.0
    save_file(weights, file)
    with pytest.raises(Stop, match="adapter of phase1 is refused: sha256 of the adapter: its session recorded"):
        find()


def test_an_adapter_trained_with_another_pad_id_is_refused(output: Path) -> None:
    change_json(output / "kchain-result.json", pad_id=151654)
    with pytest.raises(Stop, match="pad id: its session recorded 151654, here it is 151645"):
        find()


def test_an_adapter_of_another_base_model_is_refused(output: Path) -> None:
    change_json(output / "kchain-result.json", base_model="other/model/transformers/x/1")
    with pytest.raises(Stop, match="base model: its session recorded other/model"):
        find()


def test_the_adapter_of_a_failed_session_is_refused(output: Path) -> None:
    change_json(output / "kchain-result.json", status="failed")
    with pytest.raises(Stop, match="its session ended as failed"):
        find()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"r": 8}, "lora r is 8, the chain has 4"),
        ({"lora_alpha": 32}, "lora alpha is 32, the chain has 8"),
        ({"target_modules": ["q_proj"]}, r"lora targets is \['q_proj'\]"),
        ({"bias": "all"}, "lora bias is all"),
        ({"use_dora": True}, "it has use_dora = True"),
        ({"use_rslora": True}, "it has use_rslora = True"),
        ({"modules_to_save": ["lm_head"]}, "it has modules_to_save"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "it has layer_replication"),
        ({"peft_type": "LOHA"}, "it is LOHA, not LORA"),
    ],
)
def test_an_adapter_with_another_lora_config_is_refused(output: Path, changes: dict[str, Any], reason: str) -> None:
    change_json(output / "adapter" / "adapter_config.json", **changes)
    with pytest.raises(Stop, match=reason):
        find()


def test_a_pickled_adapter_is_refused(output: Path) -> None:
    (output / "adapter" / "adapter_model.safetensors").rename(output / "adapter" / "adapter_model.bin")
    with pytest.raises(Stop, match="pickled weights are not opened"):
        find()


def test_an_adapter_without_result_file_and_known_hash_is_refused(output: Path) -> None:
    (output / "kchain-result.json").unlink()
    with pytest.raises(Stop, match="no hash of its adapter is known"):
        find()


def test_an_adopted_adapter_is_accepted_by_its_hash_alone(kaggle: Path, two_phases: tuple[Path, Path]) -> None:
    mount(kaggle, "my-adapter", two_phases[0] / "adapter")
    sha256 = hash_file(two_phases[0] / "adapter" / "adapter_model.safetensors")
    adopted = ancestor("phase1", "me/my-adapter", kind="dataset", folder="", sha256=sha256)
    (adapter,) = find(lineage=[adopted])
    assert adapter.entry() == LineageEntry("phase1", "dataset", "me/my-adapter", sha256)
    with pytest.raises(Stop, match=f"the file's sha256 is {sha256}, {'0' * 64} was adopted"):
        find(lineage=[{**adopted, "sha256": "0" * 64}])


def test_a_second_adapter_built_on_another_first_one_is_refused(
    kaggle: Path, output: Path, two_phases: tuple[Path, Path]
) -> None:
    mount(kaggle, "notebooks/me/two", two_phases[1])
    lineage = [ancestor("phase1", "me/one"), ancestor("phase2", "me/two")]
    assert [adapter.phase for adapter in find(lineage=lineage)] == ["phase1", "phase2"]
    # Kaggle mounts the newest output of a kernel: phase 1 was trained again after phase 2.
    file = output / "adapter" / "adapter_model.safetensors"
    save_file(load_file(file), file, {"again": "yes"})
    result = json.loads((output / "kchain-result.json").read_text())
    change_json(output / "kchain-result.json", adapter={**result["adapter"], "sha256": hash_file(file)})
    with pytest.raises(Stop, match="adapter of phase2 is refused: adapters merged before it"):
        find(lineage=lineage)


def test_a_refused_adapter_ends_the_session_before_anything_is_merged(kaggle: Path, output: Path) -> None:
    change_json(output / "kchain-result.json", pad_id=151643)
    run = session.start(second_phase(), "b" * 64)
    with pytest.raises(Stop, match=EOS.replace("|", r"\|") + "|151643"):
        run.preflight()
    assert not (kaggle / "temp" / "merged").exists()
