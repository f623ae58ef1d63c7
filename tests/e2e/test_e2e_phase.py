"""One phase really trained: every gate that it misses stops the chain; what uses it is driven as a user does."""

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
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose first phase has trained a few steps and missed the gate on its final loss."""
    project = make_project(tmp_path_factory.mktemp("gates") / "project", max_steps=6, logging_steps=2)
    set_gates(project, max_loss=0.001)
    done = kchain(project, "run")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "loss at the end: wanted <= 0.001, got " in done.stderr
    yield project
    launch.stop(project / ".kchain" / "local")


def only_the_first_phase_was_pushed(project: Path) -> bool:
    return accepted_versions(project) == {"phase1": 1, "phase2": 0, "phase3": 0, "phase4": 0}


def test_a_missed_final_loss_stops_the_chain(trained: Path) -> None:
    assert only_the_first_phase_was_pushed(trained)
    assert kchain(trained, "run").returncode == 1
    assert only_the_first_phase_was_pushed(trained)


@pytest.mark.parametrize(
    ("gates", "told"),
    [
        ({"min_loss_fall": 0.999}, "fall of the loss: wanted falls by 99.9%"),
        ({"min_token_accuracy": 1.0}, "accuracy"),
        ({"max_eval_loss": 0.001}, "validation loss: wanted <= 0.001, got "),
        ({"min_eos_rate": 1.0}, "answers that end by themselves: wanted >= 100.0%, got "),
        ({"min_style_separation": 2.0}, "wanted >= 2, got no figure: the examples have no style tokens"),
    ],
    ids=["loss fall", "token accuracy", "validation loss", "ends", "styles"],
)
def test_a_changed_gate_is_asked_again_of_the_same_run(trained: Path, gates: dict[str, float], told: str) -> None:
    set_gates(trained, **gates)
    done = kchain(trained, "run")
    assert done.returncode == 1
    assert told in done.stderr
    assert states(trained)["phase1"]["state"] == "failed"
    assert only_the_first_phase_was_pushed(trained)


@pytest.mark.long
def test_a_run_that_was_cut_short_misses_the_gate_on_its_epochs(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", max_steps=60, step_seconds=0.0001)
    done = kchain(project, "run")
    assert done.returncode == 1
    assert "all epochs: wanted done, got status partial: a step takes" in done.stderr
    assert only_the_first_phase_was_pushed(project)
    launch.stop(project / ".kchain" / "local")


@pytest.mark.long
def test_another_pad_id_than_the_chains_ends_the_run_with_the_reason(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", max_steps=2)
    path = project / "kchain.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("eos_id = 151645", "eos_id = 151644"), encoding="utf-8")
    done = kchain(project, "run")
    assert done.returncode == 1
    assert "151645" in done.stderr and "151644" in done.stderr
    assert "run.load_data()" in done.stderr, "the failing cell is shown"
    assert "eos_id" in done.stderr, "and what to change"
    assert only_the_first_phase_was_pushed(project)
    launch.stop(project / ".kchain" / "local")


@pytest.fixture(scope="module")
def used(trained: Path) -> Path:
    """That project with gates that its phase passes, and with what uses it, all run by one command."""
    for name in ("phase2", "phase3", "phase4"):
        (trained / "phases" / f"{name}.toml").unlink()
    set_gates(trained, all_epochs="true")
    done = kchain(add_uses(trained, "phase1"), "run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stay on the target; to fetch them: kchain pull make --all" in done.stdout
    return trained


def output(project: Path, phase: str, name: str) -> str:
    return (project / "runs" / "local" / phase / "v1" / name).read_text(encoding="utf-8")


def test_each_says_what_it_found_and_nothing_is_pushed_twice(used: Path) -> None:
    rows = states(used)
    assert {name: row["state"] for name, row in rows.items()} == dict.fromkeys(rows, "done")
    assert "of 3 questions" in rows["judge"]["found"] and "2 answers" in rows["say"]["found"]
    assert "safetensors" in rows["make"]["found"] and rows["make"]["adapter_bytes"] is None
    done = kchain(used, "watch")
    assert "nothing was pushed" in done.stdout
    assert set(accepted_versions(used).values()) == {1}


def test_base_and_chain_answered_what_the_session_kept_aside(used: Path) -> None:
    report = json.loads(output(used, "judge", "evaluation.json"))
    assert report["data"]["file"] == "validation.jsonl" and len(report["answers"]) == 3
    assert all(row["base"]["text"] != row["chain"]["text"] for row in report["answers"])
    assert report["probe"]["agrees"], "the merged model is the one that the session trained"
    assert report["verdict"]["words"] in output(used, "judge", "evaluation.html").replace("&#39;", "'")


def test_every_prompt_has_its_answer(used: Path) -> None:
    rows = [json.loads(line) for line in output(used, "say", "answers.jsonl").splitlines()]
    assert [row["prompt"] for row in rows] == ["Hello!", "List the files"]
    assert all(0 < row["tokens"] <= 8 for row in rows)


def test_the_model_made_on_the_target_is_the_one_made_here(used: Path) -> None:
    place = used / "runs" / "local" / "make" / "v1" / "export" / "safetensors"
    assert sorted(path.name for path in place.iterdir()) == ["README.md", "kchain-export.json"]
    assert "| phase1 | kernel `demo/tiny-phase-1-code` |" in (place / "README.md").read_text(encoding="utf-8")
    fetched = kchain(used, "pull", "make", "--all")
    assert fetched.returncode == 0 and (place / "model.safetensors").is_file(), fetched.stderr
    fetched = kchain(used, "pull", "make")
    assert fetched.returncode == 0 and (place / "model.safetensors").is_file(), "what was fetched once stays"
    made = json.loads(kchain(used, "export", "--json").stdout)
    there: dict[str, Any] = json.loads((place / "kchain-export.json").read_text(encoding="utf-8"))["files"]
    assert there["model.safetensors"] == made["files"]["model.safetensors"]
    assert {"config.json", "tokenizer.json"} <= set(there)
