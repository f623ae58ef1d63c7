"""Dropped files trained for real on top of a finished phase: one stands in the notebook, one is a data set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import accepted_versions, kchain, make_project, states

from kchain.server import launch

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]


def examples(word: str, count: int) -> str:
    rows = [
        {"instruction": f"Show {word} {n}", "output": f"ls -l {word}/{n} | sort -k {n % 7 + 1}"} for n in range(count)
    ]
    return "".join(json.dumps(row) + "\n" for row in rows)


def drop(project: Path, name: str, text: str) -> None:
    inbox = project / "box" / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    (inbox / name).write_text(text, encoding="utf-8")


def trained(project: Path, phase: str) -> dict[str, dict[str, Any]]:
    """The result files of what lies in the inbox, by file, after it was worked off."""
    done = kchain(project, "inbox", "box", "--phase", phase, "--settle", "0.2", "--once", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {line["outcome"] for line in lines} == {"trained"}
    return {
        line["file"]: json.loads(Path(project, line["adapter"], "kchain-result.json").read_text()) for line in lines
    }


def test_a_dropped_file_becomes_an_adapter_of_a_phase_that_stays_as_it_is(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", max_steps=3)
    assert kchain(project, "review", "phase1").returncode == 0
    drop(project, "small ü.jsonl", examples("small", 40) + "{broken\n")
    result = trained(project, "phase1")["small ü.jsonl"]
    (source,) = result["examples"]["sources"]
    assert (source["read"], source["broken"], source["filtered"]) == (41, 1, 0)
    assert (result["status"], result["lineage"]) == ("complete", [])
    assert accepted_versions(project)["phase1"] == 0
    assert states(project)["phase1"]["state"] == "reviewed"
    launch.stop(project / ".kchain" / "local")


def test_large_files_are_trained_on_what_their_phase_builds_on(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", max_steps=3)
    assert kchain(project, "review", "phase1").returncode == 0
    assert kchain(project, "watch").returncode == 3
    assert kchain(project, "review", "phase2").returncode == 0
    drop(project, "small.jsonl", examples("small", 40))
    drop(project, "large.jsonl", examples("large", 5000))
    results = trained(project, "phase2")
    for name, count in (("small.jsonl", 40), ("large.jsonl", 5000)):
        assert [each["sha256"] for each in results[name]["lineage"]] == [states(project)["phase1"]["sha256"]]
        assert results[name]["examples"]["sources"][0]["read"] == count
    assert accepted_versions(project)["phase2"] == 0
    # What came of a file can take the place of a phase.
    for folder in (project / "box" / "adapters").glob("large-*"):
        taken = kchain(project, "adopt", "phase2", "--dir", str(folder))
        assert taken.returncode == 0, taken.stderr
    assert states(project)["phase2"]["state"] == "adopted"
    launch.stop(project / ".kchain" / "local")
