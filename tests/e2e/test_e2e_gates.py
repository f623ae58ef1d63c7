"""Every gate, missed by a real run: the chain stops there, and the next phase is not pushed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_tools import accepted_versions, kchain, make_project, set_gates, states

from kchain.server import launch

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
