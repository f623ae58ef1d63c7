"""Taking over what was trained elsewhere: from a folder, a data set, a kernel, and after the journal was lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_tools import accepted_versions, kchain, make_project, states

from kchain.server import launch
from kchain.server.publish import publish_dataset

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1500)]

ADAPTER = Path("runs/local/phase1/v1/adapter")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose first phase is done and whose second nobody has reviewed."""
    project = make_project(tmp_path_factory.mktemp("adopt") / "project", max_steps=6)
    assert kchain(project, "push", "phase1", "--yes").returncode == 0
    stopped = kchain(project, "watch")
    assert stopped.returncode == 3, stopped.stdout + stopped.stderr
    assert "kchain review phase2" in stopped.stderr
    assert states(project)["phase1"]["state"] == "done"
    yield project
    launch.stop(project / ".kchain" / "local")


def test_a_lost_journal_is_rebuilt_from_the_phases_own_kernel(trained: Path) -> None:
    known = states(trained)["phase1"]["sha256"]
    for file in (trained / ".kchain").glob("journal.db*"):
        file.unlink()
    assert states(trained)["phase1"]["state"] != "done"
    done = kchain(trained, "adopt", "phase1", "--kernel", "demo/tiny-phase-1-code")
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(trained)["phase1"]["state"] == "done"
    assert states(trained)["phase1"]["sha256"] == known


def test_an_adapter_with_another_pad_token_is_refused(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(trained / ADAPTER, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"pad_token": "<|vision_pad|>"}))
    publish_dataset(trained / ".kchain" / "local", "demo/wrong-padding", folder)
    refused = kchain(trained, "adopt", "phase1", "--dataset", "demo/wrong-padding")
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "<|vision_pad|>" in refused.stderr
    assert states(trained)["phase1"]["state"] == "done", "what was known before still holds"


def test_a_folder_becomes_a_private_data_set_on_which_the_next_phase_builds(trained: Path) -> None:
    adopted = kchain(trained, "adopt", "phase1", "--dir", str(ADAPTER))
    assert adopted.returncode == 0, adopted.stdout + adopted.stderr
    sha256 = states(trained)["phase1"]["sha256"]
    assert kchain(trained, "review", "phase2").returncode == 0
    metadata = json.loads((trained / "build" / "local" / "phase2" / "kernel-metadata.json").read_text())
    assert metadata["kernel_sources"] == []
    assert any("adapter" in ref for ref in metadata["dataset_sources"])
    pushed = kchain(trained, "push", "phase2")
    assert pushed.returncode == 0, pushed.stdout + pushed.stderr
    assert kchain(trained, "watch").returncode == 3, "phase3 is not reviewed"
    result = json.loads((trained / "runs" / "local" / "phase2" / "v1" / "kchain-result.json").read_text())
    assert result["status"] == "complete"
    assert [(row["kind"], row["sha256"]) for row in result["lineage"]] == [("dataset", sha256)]
    assert accepted_versions(trained)["phase1"] == 1
