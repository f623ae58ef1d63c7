"""A phase that takes several sessions: what is pushed, under which review, and what stops it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from drive_model import ModelFolder, World, make_world, model_parts
from drive_sessions import Maker, drive, pushed, stop_after_session, told

from kchain.bundle import find_hash
from kchain.errors import (
    Ambiguous,
    EditedOutside,
    GateMissed,
    InputError,
    NotReviewed,
    PhaseFailed,
    QuotaUsedUp,
)
from kchain.orchestrator.push import preview, push
from kchain.orchestrator.status import table


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


def test_a_phase_is_continued_until_it_is_done_and_only_then_the_next_one_starts(make: Maker) -> None:
    world = make(3, phases=2)
    drive(world)
    assert told(world) == [(1, ""), (2, "kernel"), (3, "kernel")]
    assert told(world, "two") == [(1, "")]
    one, two = (world.state(phase).result for phase in ("one", "two"))
    assert one is not None and two is not None and two.lineage is not None
    assert (one.version, two.lineage[0].sha256) == (3, one.sha256)
    assert one.seconds == 30.0, "the time of all sessions"
    assert world.service.unbuilt == []
    assert world.listener.said("session 1 of 3 ended at step 10 of 40")


def test_each_session_goes_on_from_the_checkpoint_of_the_one_before(make: Maker) -> None:
    world = make(3)
    drive(world)
    checkpoints = [version.result["checkpoint"] for version in world.service.kernels[world.chain.kernel("one")][:2]]  # type: ignore[index]
    assert [each.sha256 for each in pushed(world) if each is not None] == [each["sha256"] for each in checkpoints]
    folder = world.chain.root / "runs" / "local" / "one"
    assert [(folder / f"v{number}" / "checkpoint" / "manifest.json").is_file() for number in (1, 2, 3)] == [
        True,
        True,
        False,
    ]


def test_a_continuation_asks_for_no_new_review_and_runs_the_reviewed_code(make: Maker) -> None:
    world = make(2)
    drive(world)
    assert world.kinds().count("reviewed") == 1
    first, second = (version.source for version in world.service.kernels[world.chain.kernel("one")])
    cells = [json.loads(source)["cells"][1:] for source in (first, second)]
    assert cells[0] == cells[1]
    assert find_hash(first) != find_hash(second)


def test_a_session_that_fails_stops_the_chain_until_a_person_reviewed_it_again(make: Maker) -> None:
    world = make(3, phases=2)
    world.service.finals[world.chain.kernel("one")] = ["COMPLETE", "ERROR", "COMPLETE", "COMPLETE"]
    for _ in range(2):
        with pytest.raises(PhaseFailed) as caught:
            drive(world, yes=True)
    assert "kchain review one, then kchain watch: it resumes from step 10 of 40, as session 2 of 3" in caught.value.hint
    assert told(world) == [(1, ""), (2, "kernel")]
    world.review("one")
    drive(world)
    assert told(world)[2:] == [(2, "dataset"), (3, "kernel")], "its last output is that of the failed session"
    assert world.state("two").result is not None


def test_asked_again_a_phase_begins_anew(make: Maker) -> None:
    world = make(2)
    stop_after_session(world)
    push(world.chain, "one", world.target, world.listener, again=True, ports=world.ports)
    assert told(world) == [(1, ""), (1, "")]
    drive(world)
    assert told(world)[2:] == [(2, "kernel")]


def test_pushed_between_its_sessions_a_phase_goes_on(make: Maker) -> None:
    world = make(2)
    stop_after_session(world)
    shown = preview(world.chain, "one", world.target, ports=world.ports)
    assert shown.verdict == "would push session 2, from step 10 of 40 in kernel someone/model-phase-one"
    assert (shown.metadata["kernel_sources"], shown.command) == (["someone/model-phase-one"], "")
    push(world.chain, "one", world.target, world.listener, ports=world.ports)
    assert told(world) == [(1, ""), (2, "kernel")]
    assert find_hash(world.service.kernels[world.chain.kernel("one")][1].source) == shown.hash


def test_a_phase_that_used_up_its_sessions_misses_its_gate_and_goes_on_once_it_may_have_more(make: Maker) -> None:
    world = make(4, max_sessions=2)
    for _ in range(2):
        with pytest.raises(GateMissed) as caught:
            drive(world)
    assert "with a higher training.max_sessions, kchain review one resumes from step 20 of 40" in caught.value.hint
    assert told(world) == [(1, ""), (2, "kernel")]
    ModelFolder.limits["one"] = 4
    raise_sessions(world, 4)
    with pytest.raises(NotReviewed):
        drive(world)
    world.review()
    drive(world)
    assert told(world)[2:] == [(3, "kernel"), (4, "kernel")]


def raise_sessions(world: World, sessions: int) -> None:
    path = world.chain.root / "kchain.toml"
    path.write_text(path.read_text(encoding="utf-8").replace("max_sessions = 2", f"max_sessions = {sessions}"))
    world.reload()


def test_a_reviewed_change_that_allows_no_further_session_says_so_and_starts_nothing(make: Maker) -> None:
    world = make(4, max_sessions=2)
    with pytest.raises(GateMissed):
        drive(world)
    ModelFolder.code["one"] = "newer"
    world.review()
    with pytest.raises(InputError, match="has used its 2 sessions and stands at step 20 of 40"):
        drive(world)
    assert len(pushed(world)) == 2


def test_a_run_that_crawls_is_left_to_the_person_who_may_let_it_go_on(make: Maker) -> None:
    world = make(2)
    world.service.slow = [world.chain.kernel("one")]
    for _ in range(2):
        with pytest.raises(GateMissed) as caught:
            drive(world)
    assert "it resumes from step 10 of 40, as session 2 of 3" in caught.value.hint
    assert told(world) == [(1, "")]
    ModelFolder.code["one"] = "more step_seconds"
    world.review()
    drive(world)
    assert told(world) == [(1, ""), (2, "kernel")]
    assert world.state("one").result is not None


def test_a_session_killed_after_it_saved_its_checkpoint_has_lost_nothing(make: Maker) -> None:
    world = make(3)
    world.service.killed = [world.chain.kernel("one")]
    drive(world)
    assert told(world) == [(1, ""), (2, "dataset"), (3, "dataset")], "the output of what was cut off may not be mounted"
    assert world.state("one").result is not None


def test_one_session_is_all_where_the_phase_file_says_so(make: Maker) -> None:
    world = make(2, max_sessions=1)
    with pytest.raises(GateMissed):
        drive(world)
    assert told(world) == [(1, "")]


def test_an_unread_change_between_two_sessions_changes_nothing(make: Maker) -> None:
    world = make(2)
    stop_after_session(world)
    world.edit("one", "another text")
    drive(world)
    assert told(world) == [(1, ""), (2, "kernel")]
    assert "another text" not in world.service.kernels[world.chain.kernel("one")][1].source


def test_a_reviewed_change_of_the_training_begins_anew(make: Maker) -> None:
    world = make(2)
    stop_after_session(world)
    world.edit("one", "another text")
    world.review()
    drive(world)
    assert told(world) == [(1, ""), (1, ""), (2, "kernel")]


def test_reviewed_code_of_a_newer_kchain_goes_on_from_the_checkpoint(make: Maker) -> None:
    world = make(2)
    stop_after_session(world)
    ModelFolder.code["one"] = "newer"
    world.review()
    drive(world)
    assert told(world) == [(1, ""), (2, "kernel")]
    assert "# newer" in world.service.kernels[world.chain.kernel("one")][1].source


def test_a_checkpoint_on_an_adapter_that_was_trained_again_is_not_gone_on_from(make: Maker) -> None:
    world = make(1, phases=2)
    world.service.sessions[world.chain.kernel("two")] = 2
    world.service.faults = [None, None, QuotaUsedUp("pause here")]
    with pytest.raises(QuotaUsedUp):
        drive(world)
    push(world.chain, "one", world.target, world.listener, again=True, ports=world.ports)
    drive(world)
    assert told(world, "two") == [(1, ""), (1, ""), (2, "kernel")]
    assert world.service.unbuilt == []
    assert world.listener.said("is stale now")


def test_an_edit_outside_between_two_sessions_stops_it(make: Maker) -> None:
    world = make(2)
    stop_after_session(world)
    world.service.accept(world.chain.kernel("one"), '{"cells": []}')
    world.clock.sleep(10.0)
    with pytest.raises(EditedOutside):
        drive(world)


def test_a_quota_that_forbids_the_next_session_is_a_not_now(make: Maker) -> None:
    world = make(2)
    world.service.faults = [None, QuotaUsedUp("30 of 30 hours used", "the week ends on Saturday")]
    with pytest.raises(QuotaUsedUp) as caught:
        drive(world)
    assert caught.value.exit_code == 3
    (row,) = table(world.chain, world.states())
    assert (row.state, row.progress) == ("paused", "session 1 of 3, step 10 of 40")
    assert row.next == "kchain watch"
    drive(world)
    assert told(world) == [(1, ""), (2, "kernel")]


@pytest.mark.parametrize("arrived", [True, False], ids=["it arrived", "it was lost"])
def test_a_continuation_without_an_answer_is_looked_for_before_it_is_repeated(make: Maker, arrived: bool) -> None:
    world = make(2)
    lost = Ambiguous("no answer")
    world.service.faults = [None, (lost, "after") if arrived else lost]
    drive(world)
    assert told(world) == [(1, ""), (2, "kernel")]
    assert world.state("one").result is not None


def test_a_checkpoint_that_was_damaged_on_its_way_is_not_gone_on_from(make: Maker) -> None:
    world = make(2)
    real = world.service.pull

    def damages(client: Any, ref: str, version: int, to: Path) -> Path:
        real(client, ref, version, to)
        (to / "checkpoint" / "state.bin").write_bytes(b"strange")
        return to

    world.service.pull = damages  # type: ignore[method-assign]
    with pytest.raises(PhaseFailed, match=r"state\.bin: sha256"):
        drive(world)
    assert told(world) == [(1, "")]


def test_a_lost_journal_recognises_the_continuation_that_runs(make: Maker) -> None:
    world = make(3)
    world.service.faults = [None, None]
    stop_after_session(world, 2)
    for name in ("journal.db", "journal.db-wal", "journal.db-shm"):
        (world.chain.root / ".kchain" / name).unlink(missing_ok=True)
    with pytest.raises(NotReviewed):
        drive(world)
    assert world.state("one").version.session == 2  # type: ignore[union-attr]
    world.review()
    drive(world)
    assert told(world) == [(1, ""), (2, "kernel"), (3, "kernel")]
    assert world.state("one").result is not None
