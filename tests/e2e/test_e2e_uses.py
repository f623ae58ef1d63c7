"""A trained phase judged, exported and asked by notebooks on the target, as a user drives them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_tools import accepted_versions, kchain, make_project, set_gates, states

from kchain.server import launch

sys.path.append(str(Path(__file__).parents[1] / "uses"))

from uses_tools import add_uses  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One phase trained a few steps, and what uses it, all run by one command."""
    root = make_project(tmp_path_factory.mktemp("uses") / "project", max_steps=4, logging_steps=2)
    for name in ("phase2", "phase3", "phase4"):
        (root / "phases" / f"{name}.toml").unlink()
    set_gates(root, all_epochs="true")
    done = kchain(add_uses(root, "phase1"), "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stay on the target; to fetch them: kchain pull make --all" in done.stdout
    yield root
    launch.stop(root / ".kchain" / "local")


def output(project: Path, phase: str, name: str) -> str:
    return (project / "runs" / "local" / phase / "v1" / name).read_text(encoding="utf-8")


def test_each_says_what_it_found_and_nothing_is_pushed_twice(project: Path) -> None:
    rows = states(project)
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys(rows, "done")
    assert "of 3 questions" in rows["judge"]["found"] and "2 answers" in rows["say"]["found"]
    assert "safetensors" in rows["make"]["found"] and rows["make"]["adapter_bytes"] is None
    done = kchain(project, "watch")
    assert "nothing was pushed" in done.stdout
    assert set(accepted_versions(project).values()) == {1}


def test_base_and_chain_answered_what_the_session_kept_aside(project: Path) -> None:
    report = json.loads(output(project, "judge", "evaluation.json"))
    assert report["data"]["file"] == "validation.jsonl" and len(report["answers"]) == 3
    assert all(row["base"]["text"] != row["chain"]["text"] for row in report["answers"])
    assert report["probe"]["agrees"], "the merged model is the one that the session trained"
    assert report["verdict"]["words"] in output(project, "judge", "evaluation.html").replace("&#39;", "'")


def test_every_prompt_has_its_answer(project: Path) -> None:
    rows = [json.loads(line) for line in output(project, "say", "answers.jsonl").splitlines()]
    assert [row["prompt"] for row in rows] == ["Hello!", "List the files"]
    assert all(0 < row["tokens"] <= 8 for row in rows)


def test_the_model_made_on_the_target_is_the_one_made_here(project: Path) -> None:
    place = project / "runs" / "local" / "make" / "v1" / "export" / "safetensors"
    assert sorted(path.name for path in place.iterdir()) == ["README.md", "kchain-export.json"]
    assert "| phase1 | kernel `demo/tiny-phase-1-code` |" in (place / "README.md").read_text(encoding="utf-8")
    fetched = kchain(project, "pull", "make", "--all")
    assert fetched.returncode == 0 and (place / "model.safetensors").is_file(), fetched.stderr
    fetched = kchain(project, "pull", "make")
    assert fetched.returncode == 0 and (place / "model.safetensors").is_file(), "what was fetched once stays"
    made = json.loads(kchain(project, "export", "--json").stdout)
    there: dict[str, Any] = json.loads((place / "kchain-export.json").read_text(encoding="utf-8"))["files"]
    assert there["model.safetensors"] == made["files"]["model.safetensors"]
    assert {"config.json", "tokenizer.json"} <= set(there)
