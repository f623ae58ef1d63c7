"""A real phase that its time limit ends, and that goes on from its checkpoint until it is done."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import accepted_versions, kchain, make_project, states

from kchain.server import launch

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

STEPS = 2000  # three minutes on two idle cores; a slower machine needs more sessions


def make(folder: Path) -> Path:
    """The shipped tiny chain, its first phase long enough for several sessions of the shortest length there is."""
    project = make_project(folder, max_steps=6, step_seconds=30.0, max_sessions=12)
    for name in ("phase1", "phase2"):
        path = project / "phases" / f"{name}.toml"
        text = re.sub(r"(?m)^session_timeout = .*\n", "", path.read_text(encoding="utf-8"))
        if name == "phase1":
            text = text.replace("max_steps = 6", f"max_steps = {STEPS}\nepochs = 100")
        path.write_text(text.replace("\n[data]", '\nsession_timeout = "2m"\n[data]', 1), encoding="utf-8")
    return project


def results(project: Path, phase: str) -> list[dict[str, Any]]:
    """The result file of every version, oldest first."""
    folders = sorted((project / "runs" / "local" / phase).glob("v*"), key=lambda folder: int(folder.name[1:]))
    return [json.loads((folder / "kchain-result.json").read_text(encoding="utf-8")) for folder in folders]


def test_a_phase_longer_than_its_session_is_continued_until_it_is_done(tmp_path: Path) -> None:
    """Its own output is tried and found empty, the harder of the two ways; quick notebooks go both."""
    project = make(tmp_path / "project")
    root = project / ".kchain" / "local"
    launch.stop(root)
    launch.ensure_running(root, profile="machine", switches={"own_output": "empty", "dataset_seconds": 1.0})
    for phase in ("phase1", "phase2"):
        assert "at most 12 sessions of 2 min = 24 min" in kchain(project, "review", phase).stdout
    done = kchain(project, "watch")
    assert done.returncode == 3, done.stdout + done.stderr
    assert "kchain review phase3" in done.stderr
    found = results(project, "phase1")
    # Where its own output was tried and not mounted; a session that was cut while it judged goes on from a data set.
    lost = [each for each in found if "continuation:" in (each["reason"] or "")]
    sessions = [each for each in found if each not in lost]
    assert len(lost) <= 1, [each["reason"] for each in lost]
    assert [each["session"] for each in sessions] == list(range(1, len(sessions) + 1))
    assert len(sessions) >= 2
    assert [each["stopped"] for each in sessions] == ["time"] * (len(sessions) - 1) + [None]
    steps = [each["metrics"]["steps"] for each in sessions]
    assert steps == sorted(steps) and len(set(steps)) == len(steps)
    assert (steps[-1], sessions[-1]["metrics"]["all_epochs"], sessions[-1]["checkpoint"]) == (STEPS, True, None)
    assert sessions[-1]["metrics"]["loss_first"] == pytest.approx(sessions[0]["metrics"]["loss_first"])
    row = states(project)["phase1"]
    assert (row["state"], row["version"], row["steps"]) == ("done", len(found), STEPS)
    assert accepted_versions(project) == {"phase1": len(found), "phase2": 1, "phase3": 0, "phase4": 0}
    assert results(project, "phase2")[0]["lineage"][0]["sha256"] == sessions[-1]["adapter"]["sha256"]
    launch.stop(root)
