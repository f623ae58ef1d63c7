"""The commands as a person meets them: wrong words, help that teaches, nothing to do yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from drive_project import Project


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that never ran."""
    return Project(tmp_path_factory.mktemp("commands") / "project")


@pytest.mark.parametrize("command", ["review", "push", "watch", "run", "status", "logs", "pull", "adopt"])
def test_every_command_explains_itself(project: Project, command: str) -> None:
    code, out, _ = project.run(command, "--help")
    assert code == 0
    assert "--target" in out
    assert len(out.splitlines()) > 6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["push", "ninth"], ["there is no phase 'ninth'", "one, two"]),
        (["review", "ninth"], ["there is no phase 'ninth'"]),
        (["adopt", "one"], ["exactly one of --dataset, --kernel, --dir"]),
        (["adopt", "one", "--dataset", "a/b", "--kernel", "c/d"], ["exactly one of"]),
        (["adopt", "one", "--dir", "no-such-folder"], ["is not a folder"]),
        (["adopt", "ninth", "--dataset", "a/b"], ["there is no phase 'ninth'"]),
        (["push"], ["PHASE"]),
        (["watch", "--target", "ftp://x"], ["target 'ftp://x' is unknown", "kaggle, local"]),
    ],
    ids=" ".join,
)
def test_a_wrong_word_is_answered_with_the_right_ones(project: Project, arguments: list[str], words: list[str]) -> None:
    code, _, error = project.run(*arguments)
    assert code == 2, error
    assert all(word in error for word in words), error
    assert "Traceback" not in error


def test_status_of_a_chain_that_never_ran_makes_no_journal(project: Project, tmp_path: Path) -> None:
    fresh = Project(tmp_path / "fresh")
    code, out, _ = fresh.run("status", "--json")
    assert code == 0
    rows: list[dict[str, Any]] = json.loads(out)["phases"]
    assert [(row["phase"], row["state"], row["next"]) for row in rows] == [
        ("one", "new", "kchain review one"),
        ("two", "new", "waits for one"),
    ]
    assert not (fresh.root / ".kchain").exists()


def test_review_shows_plan_metadata_and_every_cell_of_a_first_push(project: Project) -> None:
    code, out, error = project.run("review", "two")
    assert code == 0, error
    assert "the base model alone" not in out
    assert '"kernel_sources": [\n    "someone/quick-phase-one"\n  ]' in out
    assert "built on" in out
    assert "=== two-quick: new" in out
    assert "+import hashlib" in out
    code, out, _ = project.run("status")
    assert "reviewed" in out


def test_review_without_a_phase_shows_the_whole_chain(project: Project) -> None:
    code, out, _ = project.run("review")
    assert code == 0
    assert "Reviewed: one, two." in out
    assert out.index("quick-phase-one") < out.index("quick-phase-two")


def test_a_broken_journal_is_said_by_every_command_with_its_cure(tmp_path: Path) -> None:
    broken = Project(tmp_path / "broken")
    (broken.root / ".kchain").mkdir()
    (broken.root / ".kchain" / "journal.db").write_bytes(b"not a journal" * 100)
    for arguments in (["status"], ["watch", "--yes"], ["push", "one"], ["review"]):
        code, _, error = broken.run(*arguments)
        assert code == 2, error
        assert "kchain adopt PHASE --kernel" in error
        assert "Traceback" not in error
