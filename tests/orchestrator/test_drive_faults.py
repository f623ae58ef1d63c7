"""What goes wrong on the way of a chain, over a small model of the service: enumerated and drawn at random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from drive_model import World, make_world, model_parts

from kchain.errors import (
    Ambiguous,
    DriverLocked,
    EditedOutside,
    KchainError,
    NotReviewed,
    PhaseFailed,
    PushRefused,
    QuotaUsedUp,
    RateLimited,
    SessionCap,
    StillRunning,
    Unreachable,
)
from kchain.orchestrator.driving.drive import PATIENCE
from kchain.orchestrator.push import push
from kchain.orchestrator.watch import watch


@pytest.fixture
def world(tmp_path: Path) -> Any:
    with model_parts():
        yield make_world(tmp_path, 2)


def drive(world: World, **options: Any) -> None:
    watch(world.chain, world.target, world.listener, yes=True, ports=world.ports, **options)


def assert_sound(world: World) -> None:
    assert world.service.overlaps == []
    assert world.service.unbuilt == []
    assert world.kinds().count("pushed") == world.service.accepted


def assert_finished(world: World) -> None:
    assert_sound(world)
    assert [world.state(phase.name).result is not None for phase in world.chain.phases] == [True, True]


def test_a_full_session_cap_is_waited_for(world: World) -> None:
    world.service.faults = [SessionCap("Maximum batch GPU session count of 2 reached."), SessionCap("still full")]
    drive(world)
    assert_finished(world)
    assert world.listener.said("session count of 2")
    assert world.kinds("one").count("refused") == 2


def test_no_wait_says_at_once_that_the_cap_is_full(world: World) -> None:
    world.service.faults = [SessionCap("full", "wait for a session to end")]
    with pytest.raises(SessionCap) as told:
        push(world.chain, "one", world.target, world.listener, yes=True, wait=False, ports=world.ports)
    assert told.value.exit_code == 3
    push(world.chain, "one", world.target, world.listener, wait=False, ports=world.ports)
    assert world.service.accepted == 1


def test_a_used_up_quota_stops_with_the_way_on(world: World) -> None:
    world.service.faults = [QuotaUsedUp("30 of 30 hours used", "the week ends on Saturday 00:00 UTC")]
    with pytest.raises(QuotaUsedUp, match="Saturday"):
        drive(world)
    drive(world)
    assert_finished(world)


def test_a_push_refused_for_good_is_remembered_until_something_changes(world: World) -> None:
    world.service.faults = [PushRefused("the slug belongs to another account", "change the title")]
    with pytest.raises(PushRefused):
        drive(world)
    reads = world.service.reads
    with pytest.raises(PushRefused, match="change the title"):
        drive(world)
    assert world.service.reads == reads
    assert world.service.accepted == 0
    world.edit("one", "another title")
    drive(world)
    assert_finished(world)


@pytest.mark.parametrize("failures", [1, 5, PATIENCE])
def test_an_outage_in_the_middle_is_sat_out(world: World, failures: int) -> None:
    once = iter(range(3))

    def outage() -> None:
        if next(once, None) == 2:
            world.service.read_faults = [Unreachable("connection refused") for _ in range(failures)]

    world.clock.on_tick = outage
    drive(world)
    assert_finished(world)
    assert world.listener.said("connection refused")


def test_a_target_that_was_never_there_is_said_at_once(world: World) -> None:
    world.service.read_faults = [Unreachable("nobody answers", "is it running?")] * 2
    with pytest.raises(Unreachable) as told:
        drive(world)
    assert told.value.exit_code == 4
    assert world.listener.waits == []
    assert world.kinds() == ["reviewed"]


def test_a_lasting_outage_ends_the_watch_and_loses_nothing(world: World) -> None:
    world.clock.on_tick = lambda: world.service.read_faults.append(Unreachable("gone"))
    with pytest.raises(Unreachable):
        drive(world)
    world.clock.on_tick = lambda: None
    world.service.read_faults = []
    drive(world)
    assert_finished(world)


def test_too_many_questions_are_answered_by_fewer(world: World) -> None:
    world.service.read_faults = []
    ticks = iter(range(4))
    world.clock.on_tick = lambda: world.service.read_faults.extend([RateLimited("429")] if next(ticks, 9) < 3 else [])
    drive(world)
    assert_finished(world)


def test_a_source_that_was_not_mounted_costs_one_more_push(world: World) -> None:
    world.service.invalid = [("kernel someone/model-phase-one",)]
    drive(world)
    assert_finished(world)
    assert world.service.accepted == 3
    assert world.listener.said("could not mount kernel someone/model-phase-one")


def test_a_source_that_is_never_mounted_fails_the_phase(world: World) -> None:
    world.service.invalid = [("data set a/b",)] * 5
    for _ in range(2):
        with pytest.raises(PushRefused, match="data set a/b"):
            drive(world)
    assert world.service.accepted == 2
    assert_sound(world)
    assert world.state("two").version is None


@pytest.mark.parametrize("word", ["ERROR", "CANCEL_ACKNOWLEDGED", "COMPLETE"])
def test_a_phase_without_a_result_stops_the_chain(world: World, word: str) -> None:
    ref = world.chain.kernel("one")
    world.service.finals[ref] = ["ERROR"]
    if word != "ERROR":
        world.service.words[ref] = ["RUNNING", word]
    with pytest.raises(PhaseFailed, match=word):
        drive(world)
    assert world.service.accepted == 1
    assert world.state("two").version is None


def test_a_result_outranks_the_word_of_the_target(world: World) -> None:
    """The session was cut at its time limit, after it had saved a complete result."""
    world.service.runtime = 0.4
    world.service.words[world.chain.kernel("one")] = ["RUNNING", "CANCEL_ACKNOWLEDGED"]
    drive(world)
    assert_finished(world)
    assert world.state("one").version.word == "CANCEL_ACKNOWLEDGED"  # type: ignore[union-attr]


def test_an_unknown_status_is_waited_out_and_said(world: World) -> None:
    world.service.words[world.chain.kernel("one")] = ["THINKING", "THINKING", "NEW_SCRIPT"]
    drive(world)
    assert_finished(world)
    assert world.listener.said("'THINKING'")


def test_someone_elses_running_version_is_waited_for(world: World) -> None:
    """A16: the kernel exists at version 4, and it runs."""
    ref = world.chain.kernel("one")
    for _ in range(4):
        world.service.accept(ref, "by hand")
        world.clock.sleep(10.0)
    world.service.kernels[ref][-1].ends = world.clock.time + 20
    with pytest.raises(StillRunning):
        push(world.chain, "one", world.target, world.listener, yes=True, wait=False, ports=world.ports)
    done = push(world.chain, "one", world.target, world.listener, ports=world.ports)
    assert done.version == 5
    assert_no_overlap(world)


def assert_no_overlap(world: World) -> None:
    assert world.service.overlaps == []


def test_an_edit_after_a_lost_push_stops_it(world: World) -> None:
    world.service.faults = [Ambiguous("no answer")]
    with pytest.raises(Ambiguous):
        push(world.chain, "one", world.target, world.listener, yes=True, wait=False, ports=world.ports)
    world.service.accept(world.chain.kernel("one"), '{"cells": []}')
    with pytest.raises(EditedOutside) as told:
        drive(world)
    assert "kchain push one --again" in told.value.hint
    world.clock.sleep(10.0)
    push(world.chain, "one", world.target, world.listener, again=True, ports=world.ports)
    assert world.service.accepted == 2
    assert_no_overlap(world)


def test_ours_is_found_under_a_later_edit(world: World) -> None:
    world.service.faults = [(Ambiguous("no answer"), "after")]
    with pytest.raises(Ambiguous):
        push(world.chain, "one", world.target, world.listener, yes=True, wait=False, ports=world.ports)
    world.clock.sleep(10.0)
    world.service.accept(world.chain.kernel("one"), '{"cells": []}')
    drive_until_stopped = pytest.raises(EditedOutside, match="version 1 was verified")
    with drive_until_stopped:
        drive(world)
    assert world.state("one").result is not None
    assert world.state("two").version is None
    assert world.service.accepted == 2


def test_a_parent_that_was_edited_after_it_was_verified_stops_its_child(world: World) -> None:
    push_and_finish_first(world)
    world.service.accept(world.chain.kernel("one"), '{"cells": []}')
    with pytest.raises(EditedOutside, match="someone/model-phase-one"):
        drive(world)
    assert world.state("two").version is None


def push_and_finish_first(world: World) -> None:
    world.service.faults = [None, QuotaUsedUp("pause here")]
    with pytest.raises(QuotaUsedUp):
        drive(world)
    assert world.state("one").result is not None


def test_running_a_parent_again_makes_its_children_stale_and_runs_them_again(world: World) -> None:
    drive(world)
    push(world.chain, "one", world.target, world.listener, again=True, ports=world.ports)
    assert ("two", "is stale now: it was trained on the adapter that one had before") in world.listener.notes
    drive(world)
    assert_finished(world)
    assert world.service.accepted == 4
    assert world.state("two").result.lineage[0].sha256 == world.state("one").result.sha256  # type: ignore[union-attr,index]


def test_the_driver_says_why_a_child_waits_for_its_parent(world: World) -> None:
    with pytest.raises(KchainError) as told:
        push(world.chain, "two", world.target, world.listener, yes=True, ports=world.ports)
    assert told.value.exit_code == 3
    assert "one, which has no verified result yet" in told.value.message
    assert world.service.accepted == 0


def test_a_journal_that_was_lost_costs_no_second_run(world: World) -> None:
    drive(world)
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (world.chain.root / ".kchain" / name).unlink(missing_ok=True)
    drive(world)
    assert world.service.accepted == 2
    assert world.kinds().count("verified") == 2


def test_a_bundle_edited_by_hand_after_its_review_is_refused(world: World) -> None:
    world.review()
    notebook = world.chain.root / "build" / "local" / "one" / "notebook.ipynb"
    notebook.write_text(notebook.read_text(encoding="utf-8").replace("Teaches", "Ruins"), encoding="utf-8")
    with pytest.raises(NotReviewed, match="is not what its phase file renders to"):
        push(world.chain, "one", world.target, world.listener, ports=world.ports)
    assert world.service.accepted == 0


def test_a_bundle_changed_between_the_look_and_the_push_is_refused(world: World) -> None:
    """The editor saves in the very moment: what is hashed is what is sent."""
    world.review()
    folder = world.chain.root / "build" / "local" / "one"
    real = world.service.status

    def saves(*arguments: Any) -> Any:
        notebook = folder / "notebook.ipynb"
        notebook.write_text(notebook.read_text(encoding="utf-8").replace("Teaches", "Ruins"), encoding="utf-8")
        return real(*arguments)

    world.service.accept(world.chain.kernel("one"), "by hand")
    world.clock.sleep(10.0)
    world.service.status = saves  # type: ignore[method-assign]
    with pytest.raises(NotReviewed, match="changed just now"):
        push(world.chain, "one", world.target, world.listener, ports=world.ports)
    assert world.service.accepted == 1


def test_watch_says_at_its_start_where_it_is_going_to_stop(world: World) -> None:
    world.review("one")
    with pytest.raises(NotReviewed):
        watch(world.chain, world.target, world.listener, ports=world.ports)
    assert world.listener.notes[0][0] == "two"
    assert "kchain review two" in world.listener.notes[0][1]
    assert world.state("one").result is not None
    assert world.state("two").version is None


def test_what_is_pushed_is_what_was_reviewed_byte_for_byte(world: World) -> None:
    world.review()
    reviewed = (world.chain.root / "build" / "local" / "one" / "notebook.ipynb").read_text(encoding="utf-8")
    push(world.chain, "one", world.target, world.listener, ports=world.ports)
    assert world.service.kernels[world.chain.kernel("one")][0].source == reviewed


def test_a_second_driver_changes_nothing(world: World) -> None:
    from kchain.orchestrator.journal.lock import driver_lock

    with driver_lock(world.chain.root), pytest.raises(DriverLocked):
        drive(world)
    assert world.service.accepted == 0


def test_once_acts_once_and_returns(world: World) -> None:
    drive(world, once=True)
    assert world.service.accepted == 1
    assert len(world.listener.waits) == 1
    drive(world, once=True)
    assert world.service.accepted == 1
    world.clock.sleep(10.0)
    drive(world, once=True)
    assert world.service.accepted == 2
    world.clock.sleep(10.0)
    drive(world, once=True)
    assert_finished(world)


def test_interrupted_anywhere_the_same_command_goes_on(world: World) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    interrupts = 0
    while True:
        world.clock.on_tick = interrupt
        try:
            drive(world)
            break
        except KeyboardInterrupt:
            interrupts += 1
    assert interrupts > 4
    assert_finished(world)
    assert world.service.accepted == 2
