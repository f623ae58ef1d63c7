"""Training in processes of its own: the same losses with two of them as with one, and the same again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from runtime_tiny import Events
from runtime_workers import apart, losses, make_folder, make_job, random_examples, small_base, train

from kchain.runtime.contract import WEIGHTS
from kchain.runtime.files import hash_file


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["OMP_NUM_THREADS"] = "1"
    return small_base(tmp_path_factory.mktemp("small") / "base")


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [pytest.param(False, marks=pytest.mark.long), True])
def test_two_processes_have_the_losses_of_one_also_where_a_step_is_not_full(
    small: Path, tmp_path: Path, events: Events, checkpointing: bool
) -> None:
    examples = random_examples(17)  # 5 steps an epoch, the last of one example: one process has nothing to learn in it
    changes: dict[str, Any] = {"training__epochs": 2, "training__checkpointing": checkpointing}
    found = []
    for processes in (1, 2):
        folder = make_folder(tmp_path / str(processes), examples)
        trained = train(folder, make_job(small, processes=processes, **changes))
        assert (trained.outcome.steps, trained.outcome.epochs, trained.recovered) == (10, 2.0, [])
        found.append(losses(events()))
    assert apart(*found) < 1e-5
    assert found[0][10] < found[0][1]


@pytest.mark.slow
def test_the_same_job_has_the_same_losses_and_the_same_adapter_again(
    small: Path, tmp_path: Path, events: Events
) -> None:
    found = []
    for name, seed in (("one", 42), ("again", 42), ("other", 43)):
        folder = make_folder(tmp_path / name, random_examples(12))
        train(folder, make_job(small, lora__dropout=0.3, seed=seed))
        found.append((losses(events()), hash_file(folder / "adapter" / WEIGHTS)))
    assert found[0] == found[1]
    assert found[0] != found[2]
