"""What every command prints and how it ends: hints that can be pasted, narrow and plain terminals, broken disks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import kchain

from kchain.cli.review import _unseen
from kchain.kernel_metadata import METADATA_FILE
from kchain.orchestrator.review import Review
from kchain.phases import load_chain
from kchain.phases.init import make_project
from kchain.phases.plan import training_plan

URL = "http://127.0.0.1:9"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "größer als sonst"
    make_project(folder, "tiny", "someone")
    return folder


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("KAGGLE_")]:
        monkeypatch.delenv(name)


def in_ascii(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A real process whose terminal knows only ASCII."""
    return subprocess.run(
        [sys.executable, "-m", "kchain", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        encoding="ascii",
        timeout=300,
    )


def test_the_next_step_repeats_the_target_that_was_typed(project: Path) -> None:
    assert f"kchain review phase1 --target {URL}" in kchain(project, "status", "--target", URL).stdout
    assert f"kchain watch --target {URL}" in kchain(project, "review", "phase1", "--target", URL).stdout
    assert "--target" not in kchain(project, "status").stdout


def test_the_next_step_repeats_the_folder_that_was_typed(project: Path) -> None:
    shown = kchain(project.parent, "-C", project.name, "status").stdout
    assert f"kchain -C '{project.name}' review phase1" in shown


def test_an_error_repeats_both_in_what_to_try(project: Path) -> None:
    key = project / "key"
    key.write_text("x" * 40)
    words = ("-C", project.name, "logs", "phase1", "-f", "--target", URL)
    done = kchain(project.parent, *words, KCHAIN_KEY_FILE=str(key))
    assert done.returncode == 4
    assert "cannot be reached" in done.stderr


@pytest.mark.parametrize("words", [("plan",), ("status",), ("review", "phase1"), ("init", "ä", "--owner", "someone")])
def test_a_terminal_that_knows_only_ascii_gets_question_marks(project: Path, words: tuple[str, ...]) -> None:
    text = (project / "phases/phase1.toml").read_text(encoding="utf-8").replace("Short Python", "Kurze → Python")
    (project / "phases/phase1.toml").write_text(text, encoding="utf-8")
    done = in_ascii(project, *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_json_stays_whole_where_only_ascii_can_be_printed(project: Path) -> None:
    text = (project / "phases/phase1.toml").read_text(encoding="utf-8").replace("Short Python", "Kürze")
    (project / "phases/phase1.toml").write_text(text, encoding="utf-8")
    found = json.loads(in_ascii(project, "plan", "phase1", "--json").stdout)
    assert found[0]["description"].startswith("Kürze")


@pytest.mark.parametrize("words", [("review", "phase1"), ("watch",), ("run",)])
def test_a_place_that_cannot_be_written_is_named_without_a_traceback(project: Path, words: tuple[str, ...]) -> None:
    (project / ".kchain").write_text("in the way")
    done = kchain(project, *words)
    assert done.returncode == 2
    assert ".kchain" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_who_has_seen_enough_leaves_no_traceback(project: Path) -> None:
    command = f"'{sys.executable}' -m kchain plan | head -1"
    path = str(Path(__file__).parents[2])
    done = subprocess.run(
        command, shell=True, cwd=project, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


def test_init_without_a_user_says_the_whole_command(tmp_path: Path) -> None:
    done = kchain(tmp_path, "init", "my chain", "--example", "tiny", XDG_CONFIG_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "kchain init 'my chain' --example tiny --owner" in done.stderr


def test_the_code_that_all_notebooks_share_is_shown_once_in_a_review(project: Path) -> None:
    shown = kchain(project, "review").stdout
    assert shown.count("class Watch(TrainerCallback)") == 1
    assert "=== phase4-runtime-train: new, as phase1-runtime-train above" in shown
    assert shown.count("BUNDLE = ") == 4


def test_a_cell_that_differs_by_one_line_is_shown_whole(project: Path) -> None:
    chain = load_chain(project)
    first, second = (
        Review(
            phase=name, kernel="", folder=project, hash="", plan=training_plan(chain, "phase1"),
            metadata={METADATA_FILE: 1}, pushed=None,
            changes=(f"=== {name}-x: new", *(f"+{line}" for line in range(20)), f"+{last}"),
            findings=(), known=False,
        )
        for name, last in (("one", "end"), ("two", "END"))
    )  # fmt: skip
    seen: dict[str, str] = {}
    assert tuple(_unseen(first, seen)) == first.changes
    assert tuple(_unseen(second, seen)) == second.changes
    (again,) = _unseen(first, {**seen, "\n".join(first.changes[1:]): "=== zero-x: new"})
    assert again == "=== one-x: new, as zero-x above (21 lines)"


def test_a_rehearsed_push_with_yes_speaks_of_what_a_push_with_yes_does(project: Path) -> None:
    try:
        plain = kchain(project, "push", "phase1", "--dry-run")
        assert "would refuse: phase1 has not been reviewed" in plain.stdout, plain.stderr
        assert (
            "would push; there is no such kernel yet" in kchain(project, "push", "phase1", "--dry-run", "--yes").stdout
        )
        assert not (project / "build").exists()
    finally:
        kchain(project, "serve", "--stop")
