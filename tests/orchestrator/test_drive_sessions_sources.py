"""Where a later session finds its checkpoint: the kernel's own output, or a data set that is made of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from drive_model import World, make_world, model_parts
from drive_sessions import Maker, drive, pushed, stop_after_session, told

from kchain.errors import (
    Ambiguous,
    PhaseFailed,
    Unreachable,
)


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Maker]:
    """A world whose first phase takes so many sessions."""

    def new(sessions: int, phases: int = 1, own_output: str = "mounted", **training: object) -> World:
        world = make_world(tmp_path, phases, **training)
        world.service.sessions[world.chain.kernel("one")] = sessions
        world.service.own_output = own_output
        world.review()
        return world

    with model_parts():
        yield new


@pytest.mark.parametrize("own_output", ["empty", "invalid"])
def test_where_the_own_output_is_not_mounted_a_data_set_takes_its_place_from_then_on(
    make: Maker, own_output: str
) -> None:
    world = make(3, phases=2, own_output=own_output, max_sessions=3)
    world.service.sessions[world.chain.kernel("two")] = 2
    drive(world)
    assert told(world) == [(1, ""), (2, "kernel"), (2, "dataset"), (3, "dataset")]
    assert told(world, "two") == [(1, ""), (2, "dataset")], "the journal remembers"
    assert world.service.uploads == 3
    assert world.listener.said("it does not count as a session")
    assert world.state("two").result is not None


def test_a_data_set_is_waited_for_until_it_is_ready(make: Maker) -> None:
    world = make(2, own_output="empty")
    drive(world)
    assert world.listener.said("is being processed (BLOBS_RECEIVED)")


def test_a_data_set_that_its_first_session_finds_empty_is_tried_once_more(make: Maker) -> None:
    world = make(2, own_output="empty")
    world.service.dataset_mounts = [False, True]
    drive(world)
    assert told(world) == [(1, ""), (2, "kernel"), (2, "dataset"), (2, "dataset")]
    assert world.state("one").result is not None


def test_a_data_set_that_is_never_mounted_fails_the_phase(make: Maker) -> None:
    world = make(2, own_output="empty")
    world.service.dataset_mounts = [False] * 9
    for _ in range(2):
        with pytest.raises(PhaseFailed, match="was not mounted") as caught:
            drive(world)
        assert "from step 10 of 40" in caught.value.hint
    assert len(pushed(world)) == 4


@pytest.mark.parametrize("arrived", [True, False], ids=["it arrived", "it was lost"])
def test_a_data_set_whose_making_got_no_answer_is_looked_for_before_it_is_made_again(
    make: Maker, arrived: bool
) -> None:
    world = make(2, own_output="empty")
    lost = Ambiguous("no answer")
    world.service.dataset_faults = [(lost, "after") if arrived else lost]
    drive(world)
    assert world.service.uploads == 1
    assert world.state("one").result is not None
    assert world.kinds().count("uploading") == (1 if arrived else 2)


def test_a_data_set_that_cannot_be_processed_stops_with_the_way_on(make: Maker) -> None:
    world = make(2, own_output="empty")

    def breaks() -> None:
        for found in world.service.datasets.values():
            found.word = "FAILED"

    world.clock.on_tick = breaks
    with pytest.raises(PhaseFailed, match="is FAILED") as caught:
        drive(world)
    assert "delete it on the target" in caught.value.hint
    world.clock.on_tick = lambda: None
    world.service.datasets.clear()
    world.clock.sleep(100.0)
    drive(world)
    assert world.state("one").result is not None


def test_a_deleted_copy_of_the_checkpoint_is_fetched_again_for_the_data_set(make: Maker) -> None:
    world = make(2, own_output="empty")
    stop_after_session(world)
    shutil.rmtree(world.chain.root / "runs")
    drive(world)
    assert world.state("one").result is not None


def test_an_outage_while_the_data_set_is_made_is_sat_out(make: Maker) -> None:
    world = make(2, own_output="empty")
    world.service.dataset_faults = [Unreachable("the store is away")]
    drive(world)
    assert world.service.uploads == 1
    assert world.state("one").result is not None
