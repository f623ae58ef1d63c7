"""A driver that dies at any moment: started again, it loses nothing and pushes nothing twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from drive_model import Died, World, make_world, model_parts

from kchain.errors import Ambiguous
from kchain.orchestrator.push import push
from kchain.orchestrator.watch import watch

PHASES = 2
# Deaths of a driver, at points counted over a whole run; more would be a new effect that nobody thought about.
POINTS = 36


def drive(world: World) -> None:
    watch(world.chain, world.target, world.listener, yes=True, ports=world.ports)


def check(world: World) -> None:
    """What holds at the end whatever happened on the way."""
    service = world.service
    assert service.overlaps == [], "two sessions of one kernel at once"
    assert service.unbuilt == [], "a phase started before its parent had a result"
    assert world.kinds().count("pushed") == service.accepted, "accepted versions and closed intents differ"
    assert all(state.intent is None and state.result is not None for state in world.states().values())
    assert len(world.states()) == len(world.chain.phases)


def run_to(world: World, fatal: int) -> bool:
    """Drive until death at that point; False: the run ended before it."""
    world.service.points.fatal = fatal
    try:
        drive(world)
    except Died:
        return True
    return False


def test_the_points_of_a_run_are_known(tmp_path: Path) -> None:
    world = make_world(tmp_path, PHASES)
    with model_parts(world.service.points):
        drive(world)
    names = world.service.points.names
    assert len(names) == POINTS, names
    assert names.index("intent:after") < names.index("push:before") < names.index("pushed:before")


@pytest.mark.parametrize("fatal", range(1, POINTS + 1))
def test_death_at_any_point_costs_no_version_and_no_event(tmp_path: Path, fatal: int) -> None:
    world = make_world(tmp_path, PHASES)
    with model_parts(world.service.points):
        assert run_to(world, fatal)
        before = world.kinds()
        world.restarted()
        drive(world)
        assert world.kinds()[: len(before)] == before
        check(world)
        assert world.service.accepted == PHASES, "a duplicate push"


def test_deaths_after_deaths_still_end_well(tmp_path: Path) -> None:
    """Every process gets five points further than the one before; each of them dies."""
    world = make_world(tmp_path, PHASES)
    with model_parts(world.service.points):
        deaths = 0
        while run_to(world, len(world.service.points.names) + 5):
            deaths += 1
            assert deaths < 100
            world.clock.sleep(1.0)
        check(world)
        assert deaths > PHASES
        assert world.service.accepted == PHASES


def test_death_while_a_foreign_session_runs_starts_no_second_one(tmp_path: Path) -> None:
    world = make_world(tmp_path, 1)
    world.service.runtime = 50.0
    ref = world.chain.kernel("one")
    world.service.accept(ref, "by hand")
    with model_parts(world.service.points):
        for fatal in range(3, 6):
            world.restarted()
            run_to(world, len(world.service.points.names) + fatal)
        world.restarted()
        drive(world)
        check_overlaps = world.service.overlaps
    assert check_overlaps == []
    assert [version.number for version in world.service.kernels[ref]] == [1, 2]


def test_a_finished_chain_run_again_asks_the_target_nothing(tmp_path: Path) -> None:
    world = make_world(tmp_path, PHASES)
    with model_parts(world.service.points):
        drive(world)
        events, reads = world.kinds(), world.service.reads
        drive(world)
    assert world.kinds() == events
    assert world.service.reads == reads
    assert world.service.accepted == PHASES


@pytest.mark.parametrize("arrived", [True, False], ids=["it arrived", "it was lost"])
def test_a_push_without_an_answer_is_looked_for_before_it_is_repeated(tmp_path: Path, arrived: bool) -> None:
    world = make_world(tmp_path, 1)
    lost = Ambiguous("no answer")
    world.service.faults = [(lost, "after") if arrived else lost]
    with model_parts():
        drive(world)
    check(world)
    assert world.service.accepted == 1
    assert ("released" in world.kinds()) is (not arrived)
    assert world.listener.said("looking whether it arrived")


def test_a_lost_push_of_once_is_settled_by_the_next_ones(tmp_path: Path) -> None:
    world = make_world(tmp_path, 1)
    world.service.faults = [Ambiguous("no answer")]
    with model_parts():
        for _ in range(12):
            watch(world.chain, world.target, world.listener, yes=True, once=True, ports=world.ports)
            world.clock.sleep(3.0)
    check(world)
    assert world.service.accepted == 1


def test_no_wait_tells_that_a_push_has_no_known_outcome(tmp_path: Path) -> None:
    world = make_world(tmp_path, 1)
    world.service.faults = [Ambiguous("no answer")]
    with model_parts(), pytest.raises(Ambiguous) as told:
        push(world.chain, "one", world.target, world.listener, yes=True, wait=False, ports=world.ports)
    assert told.value.exit_code == 4
    assert world.state("one").intent is not None
