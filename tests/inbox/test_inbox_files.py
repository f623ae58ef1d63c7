"""What becomes of dropped files: trained once, tried again, rejected, or left where they are."""

from __future__ import annotations

import shutil

import pytest
from drive_model import ModelFolder
from inbox_place import Place, rows

from kchain.errors import DriverLocked, NotNow, NotReviewed, PhaseFailed, PushRefused, QuotaUsedUp, Unreachable
from kchain.inbox import loop as running
from kchain.inbox.loop import Handled
from kchain.orchestrator.journal.lock import driver_lock, only_one


@pytest.mark.parametrize("fault", [QuotaUsedUp("no hours left"), Unreachable("no route")])
def test_what_is_not_possible_now_leaves_the_file_where_it_is(place: Place, fault: Exception) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.world.service.faults = [fault]
    place.world.service.read_faults = [fault] if isinstance(fault, Unreachable) else []
    with pytest.raises(type(fault)):
        place.run()
    assert place.files()["inbox"] == ["x.jsonl"]
    assert place.run() == 0
    assert place.outcomes() == ["trained"]
    assert place.world.service.accepted == 1


def test_an_inbox_that_stays_tries_again_by_itself(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_FIRST_PAUSE", 0.01)
    place.drop("x.jsonl", rows("cat"))
    place.world.service.faults = [QuotaUsedUp("no hours left"), QuotaUsedUp("no hours left")]

    def stop(settled: Handled) -> None:
        place.done.append(settled)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.run(once=False, told=stop)
    assert place.outcomes() == ["trained"]
    assert place.world.listener.said("no hours left; it stays, trying again")
    assert len([text for _, text in place.world.listener.notes if "is checked" in text]) == 1
    assert place.run() == 0
    assert place.world.service.accepted == 1


def test_an_empty_inbox_says_so(place: Place) -> None:
    assert place.run() == 0
    assert place.world.listener.said("nothing to take in")


def test_a_file_in_work_is_finished_as_it_was_begun(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.world.service.faults = [QuotaUsedUp("no hours left")]
    with pytest.raises(QuotaUsedUp):
        place.run("one")
    place.world.review("two")
    assert place.run("two") == 0
    assert [name for name in place.world.states() if "inbox" in name] == [f"one-inbox-{place.done[0].sha256[:10]}"]


def test_the_same_content_is_trained_once_whatever_it_is_called(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.run()
    place.drop("x.jsonl", rows("cat"))
    place.run()
    place.drop("y.jsonl", rows("cat"))
    place.run()
    assert place.outcomes() == ["trained", "already trained", "already trained"]
    assert {settled.adapter for settled in place.done} == {place.done[0].adapter}
    assert place.files()["archive"] == ["x.jsonl", "y.jsonl"]
    assert place.world.service.accepted == 1


def test_the_same_content_is_trained_again_when_the_phase_has_changed(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.run()
    name = next(iter(place.world.states().keys() - {"one"}))
    ModelFolder.code[name] = "a newer kchain"
    place.drop("x.jsonl", rows("cat"))
    place.run()
    ModelFolder.salt[name] = "another learning rate"
    place.drop("x.jsonl", rows("cat"))
    place.run()
    assert place.outcomes() == ["trained", "already trained", "trained"]
    assert len(place.files()["adapters"]) == 2


def test_a_run_that_failed_rejects_the_file_and_dropping_it_again_tries_again(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.fails()
    assert place.run() == 1
    reason = (place.box.rejected / "x.jsonl.reason.txt").read_text()
    assert "ended with ERROR" in reason
    assert "put the file into inbox/ again" in reason
    assert "kchain push" not in reason
    (place.box.rejected / "x.jsonl").rename(place.box.inbox / "x.jsonl")
    assert place.run() == 0
    assert place.world.service.accepted == 2


def test_three_runs_that_fail_in_a_row_stop_the_inbox(place: Place) -> None:
    for number in range(5):
        place.drop(f"{number}.jsonl", rows(f"cat {number}"))
        place.fails(f"{number}.jsonl")
    with pytest.raises(PhaseFailed, match="3 runs in a row failed"):
        place.run()
    assert place.world.service.accepted == 3
    assert len(place.files()["inbox"]) == 2


def test_a_phase_that_nobody_reviewed_trains_nothing(place: Place) -> None:
    place.world.edit("one", "another learning rate")
    place.drop("x.jsonl", rows("cat"))
    with pytest.raises(NotReviewed) as told:
        place.run()
    assert "kchain review one" in told.value.hint
    assert place.files()["inbox"] == ["x.jsonl"]


def test_a_file_that_failed_is_not_tried_again_before_the_changed_phase_was_reviewed(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    name = place.run_name()
    place.fails()
    assert place.run() == 1
    place.drop("x.jsonl", rows("cat"))
    assert not (place.box.state / "job").exists()
    for phase in ("one", name):
        place.world.edit(phase, "another learning rate")
    with pytest.raises(NotReviewed, match="one was not reviewed as it is now"):
        place.run()
    place.world.review("one")
    assert place.run() == 0
    assert place.outcomes() == ["rejected", "trained"]


@pytest.mark.parametrize("again", [False, True])
def test_a_push_that_the_target_refuses_rejects_the_file_once_for_every_drop(place: Place, again: bool) -> None:
    for _ in range(1 + again):
        place.drop("x.jsonl", rows("cat"))
        place.world.service.faults = [PushRefused("bad source")]
        assert place.run() == 1
        place.world.clock.sleep(1.0)
    assert place.files()["inbox"] == []
    assert "bad source" in (place.box.rejected / "x.jsonl.reason.txt").read_text()
    assert place.outcomes() == ["rejected"] * (1 + again)


def test_a_phase_waits_for_the_phases_that_it_builds_on(place: Place) -> None:
    place.world.review("two")
    place.drop("x.jsonl", rows("cat"))
    with pytest.raises(NotNow, match="builds on one"):
        place.run("two")
    place.world.service.accept(place.world.chain.kernel("one"), "by hand")
    assert place.files()["inbox"] == ["x.jsonl"]


def test_one_kchain_works_on_an_inbox_and_one_drives_the_chain(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    with only_one(place.box.state / "lock", "taken"), pytest.raises(DriverLocked, match="works on this inbox"):
        place.run()
    with driver_lock(place.world.chain.root), pytest.raises(DriverLocked, match="drives this chain"):
        place.run()
    assert place.run() == 0


def test_a_file_that_is_deleted_while_it_trains_is_archived_all_the_same(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.world.clock.on_tick = lambda: (place.box.inbox / "x.jsonl").unlink(missing_ok=True)
    place.run()
    assert (place.box.archive / "x.jsonl").read_text() == rows("cat")


def test_an_archive_that_cannot_be_written_to_any_more_costs_no_second_run(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))

    def break_it() -> None:
        if place.box.archive.is_dir():
            place.box.archive.rmdir()
            place.box.archive.write_text("a file stands in its way")

    place.world.clock.on_tick = break_it
    with pytest.raises(OSError, match="archive"):
        place.run()
    assert place.files()["inbox"] == ["x.jsonl"]
    place.world.clock.on_tick = lambda: None
    place.box.archive.unlink()
    assert place.run() == 0
    assert place.files()["archive"] == ["x.jsonl"]
    assert place.world.service.accepted == 1


def test_a_file_that_changes_while_it_trains_is_another_file(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.world.clock.on_tick = lambda: place.drop("x.jsonl", rows("dog"))
    place.run()
    assert place.outcomes() == ["trained", "trained"]
    assert {path.read_text() for path in place.box.archive.iterdir()} == {rows("cat"), rows("dog")}


def test_an_adapter_that_was_deleted_is_fetched_again(place: Place) -> None:
    place.drop("x.jsonl", rows("cat"))
    place.run()
    for folder in (place.box.adapters, place.world.chain.root / "runs"):
        shutil.rmtree(folder)
    place.drop("x.jsonl", rows("cat"))
    place.run()
    assert place.outcomes()[-1] == "already trained"
    assert len(place.files()["adapters"]) == 1
