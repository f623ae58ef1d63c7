"""A driver that dies at any moment of a phase of two sessions: exactly the right number of versions and data sets."""

from __future__ import annotations

from pathlib import Path

import pytest
from drive_model import Died, World, make_world, model_parts

from kchain.errors import Ambiguous
from kchain.orchestrator.watch import watch

# How the target treats the kernel's own output -> (versions of the phase, data sets, points at which a driver can die).
WAYS = {"mounted": (2, 0, 34), "empty": (3, 1, 56), "invalid": (3, 1, 52)}


def make(root: Path, own_output: str) -> World:
    world = make_world(root, 1)
    world.service.sessions[world.chain.kernel("one")] = 2
    world.service.own_output = own_output
    return world


def drive(world: World) -> None:
    watch(world.chain, world.target, world.listener, yes=True, ports=world.ports)


def check(world: World, own_output: str) -> None:
    """What holds at the end whatever happened on the way."""
    versions, datasets, _ = WAYS[own_output]
    service = world.service
    assert service.overlaps == [], "two sessions of one kernel at once"
    assert service.accepted == versions, "a session too many, or too few"
    assert service.uploads == datasets
    assert world.kinds().count("pushed") == versions
    assert world.kinds().count("paused") == 1
    state = world.state("one")
    assert state.intent is None and state.result is not None
    assert state.result.version == versions


@pytest.mark.parametrize("own_output", WAYS)
def test_the_points_of_a_run_of_two_sessions_are_known(tmp_path: Path, own_output: str) -> None:
    world = make(tmp_path, own_output)
    with model_parts(world.service.points):
        drive(world)
        check(world, own_output)
    names = world.service.points.names
    assert len(names) == WAYS[own_output][2], names
    if own_output == "empty":
        assert names.index("uploading:after") < names.index("dataset:before") < names.index("uploaded:before")


@pytest.mark.parametrize(
    ("own_output", "fatal"), [(way, fatal) for way in WAYS for fatal in range(1, WAYS[way][2] + 1)]
)
def test_death_at_any_point_costs_no_session(tmp_path: Path, own_output: str, fatal: int) -> None:
    world = make(tmp_path, own_output)
    with model_parts(world.service.points):
        world.service.points.fatal = fatal
        with pytest.raises(Died):
            drive(world)
        before = world.kinds()
        world.restarted()
        drive(world)
        assert world.kinds()[: len(before)] == before
        check(world, own_output)


@pytest.mark.parametrize("own_output", WAYS)
def test_deaths_after_deaths_still_end_well(tmp_path: Path, own_output: str) -> None:
    """Every process gets seven points further than the one before; each of them dies."""
    world = make(tmp_path, own_output)
    with model_parts(world.service.points):
        deaths, alive = 0, True
        while alive:
            world.service.points.fatal = len(world.service.points.names) + 7
            try:
                drive(world)
                alive = False
            except Died:
                deaths += 1
                assert deaths < 100
                world.clock.sleep(1.0)
        check(world, own_output)
    assert deaths > 4


@pytest.mark.parametrize("arrived", [True, False], ids=["it arrived", "it was lost"])
def test_death_after_an_upload_without_an_answer_makes_no_second_data_set(tmp_path: Path, arrived: bool) -> None:
    world = make(tmp_path, "empty")
    lost = Ambiguous("no answer")
    world.service.dataset_faults = [(lost, "after") if arrived else lost]
    with model_parts(world.service.points):
        world.service.points.fatal = 0
        drive(world)
        first = world.service.points.names.index("uploading:after") + 1
        world.restarted()
    again = make(tmp_path / "again", "empty")
    again.service.dataset_faults = [(lost, "after") if arrived else lost]
    with model_parts(again.service.points):
        again.service.points.fatal = first
        with pytest.raises(Died):
            drive(again)
        again.restarted()
        drive(again)
        check(again, "empty")
