"""The table that decides what happens next with a phase, row by row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kchain.errors import (
    AdapterRefused,
    Ambiguous,
    EditedOutside,
    InputError,
    KchainError,
    NotNow,
    NotReviewed,
    PhaseFailed,
    PushRefused,
    QuotaUsedUp,
    RateLimited,
    SessionCap,
    StillRunning,
    Unreachable,
)
from kchain.orchestrator.driving.actions import (
    Done,
    End,
    Fail,
    Found,
    GiveUp,
    JudgeOutputs,
    Look,
    Observation,
    Parent,
    Pull,
    Push,
    Release,
    Wait,
    Wish,
)
from kchain.orchestrator.driving.decide import LONGEST_PAUSE, Need, after_refusal, decide, need
from kchain.orchestrator.journal.state import Ancestor, Intent, PhaseFailure, PhaseState, Result, Version

NOW, SETTLE = 10_000.0, 60.0
BUNDLE, OTHER = "b" * 64, "c" * 64
LINEAGE = (Ancestor("phase1", "1" * 64),)
INTENT = Intent(BUNDLE, 3, LINEAGE, resend=False, time=NOW - 10)
VERSION = Version(4, "https://x/4", BUNDLE, LINEAGE, (), resend=False, time=NOW - 1000)
ENDED = replace(VERSION, word="COMPLETE", ended=True)
PULLED = replace(ENDED, folder="runs/local/phase2/v4")
RESULT = Result(4, "kernel", "me/two", "adapter", False, "2" * 64, 99, LINEAGE, 151645, {}, {}, 1.0, "runs", NOW - 5)
FAILED = PhaseFailure(BUNDLE, 4, "AdapterRefused", "the rank is wrong", "train it again", "{}", NOW - 5)
PARENT = Parent("phase1", ready=True, source="me/one", verified=7, current=7)

FRESH = PhaseState(reviewed=frozenset({BUNDLE}))
OPEN = replace(FRESH, intent=INTENT)
LOOKED = replace(FRESH, intent=replace(INTENT, looked=NOW - SETTLE - 1))
LOOKED_JUST_NOW = replace(FRESH, intent=replace(INTENT, looked=NOW - 5))
FLYING = replace(FRESH, version=VERSION)
JUST_PUSHED = replace(FRESH, version=replace(VERSION, time=NOW - 1))
DONE = replace(FRESH, version=PULLED, result=RESULT)
BROKEN = replace(FRESH, version=PULLED, failure=FAILED)
INVALID = replace(FRESH, version=replace(ENDED, invalid=("kernel me/one",), word="ERROR"))
INVALID_TWICE = replace(FRESH, version=replace(ENDED, invalid=("kernel me/one",), word="ERROR", resend=True))


def seen(**what: Any) -> Observation:
    """An observation in which everything is ready for a push, but for what is said."""
    ready = {"bundle": BUNDLE, "disk": BUNDLE, "parents": (PARENT,)}
    return replace(Observation(NOW, SETTLE), **{**ready, **what})


Row = tuple[str, PhaseState, Observation, Wish, object]
FINISH, PUSH, AGAIN = Wish.FINISH, Wish.PUSH, Wish.AGAIN
TIMED_OUT = "CANCEL_ACKNOWLEDGED"

# (what a user would notice, what the journal knows, what was seen, what was asked for) -> action, or the error told.
ROWS: list[Row] = [
    ("a reviewed phase that never ran is pushed", FRESH, seen(), FINISH, Push(None)),
    ("a kernel made by hand is pushed over", FRESH, seen(kernel=4, word="COMPLETE"), PUSH, Push(4)),
    ("someone's running version is waited for", FRESH, seen(kernel=4, word="RUNNING"), PUSH, StillRunning),
    ("someone's queued version is waited for", FRESH, seen(kernel=4, word="QUEUED"), PUSH, StillRunning),
    ("a version being cancelled is waited for", FRESH, seen(kernel=4, word="CANCEL_REQUESTED"), AGAIN, StillRunning),
    ("an unknown word on the kernel is waited for", FRESH, seen(kernel=4, word="PAUSED"), PUSH, StillRunning),
    ("a kernel that never ran is pushed over", FRESH, seen(kernel=4, word="NEVER_RUN"), PUSH, Push(4)),
    ("the very same bundle pushed by hand is followed",
     FRESH, seen(kernel=4, current_hash=BUNDLE), FINISH, Found(4, BUNDLE)),
    ("asked again, the same bundle is pushed", FRESH, seen(kernel=4, current_hash=BUNDLE), AGAIN, Push(4)),
    ("nothing unreviewed is pushed", PhaseState(), seen(), PUSH, NotReviewed),
    ("a bundle edited by hand after review is refused", FRESH, seen(disk=OTHER), PUSH, NotReviewed),
    ("a phase file changed after review is refused", FRESH, seen(bundle=OTHER), PUSH, NotReviewed),
    ("a rendered change nobody reviewed is refused", FRESH, seen(bundle=OTHER, disk=OTHER), AGAIN, NotReviewed),
    ("a bundle that does not lint is refused", FRESH, seen(lint=("KC101: no GPU",)), PUSH, InputError),
    ("a phase does not start before its parent", FRESH, seen(parents=(replace(PARENT, ready=False),)), FINISH, NotNow),
    ("a parent edited outside stops its child",
     FRESH, seen(parents=(replace(PARENT, current=8),)), FINISH, EditedOutside),
    ("a parent that is gone stops its child",
     FRESH, seen(parents=(replace(PARENT, current=None),)), PUSH, EditedOutside),
    ("a failed read changes nothing", OPEN, seen(unread="no answer", kernel=9), FINISH, Unreachable),
    ("a failed read pushes nothing", FRESH, seen(unread="no answer"), AGAIN, Unreachable),
    ("after a crash, the pushed version is found", OPEN, seen(kernel=4, ours=4), FINISH, Found(4, BUNDLE)),
    ("ours is found under someone's later edit", OPEN, seen(kernel=6, ours=4), FINISH, Found(4, BUNDLE)),
    ("someone else's newer version stops it", OPEN, seen(kernel=4), FINISH, EditedOutside),
    ("asked again, it goes over someone's version", OPEN, seen(kernel=4), AGAIN, Release),
    ("an unchanged kernel is looked at once more", OPEN, seen(kernel=3), FINISH, Look(3)),
    ("while the target settles nothing is pushed", LOOKED_JUST_NOW, seen(kernel=3), FINISH, Ambiguous),
    ("even when asked again it settles first", LOOKED_JUST_NOW, seen(kernel=3), AGAIN, Ambiguous),
    ("unchanged after settling, it was never sent", LOOKED, seen(kernel=3), FINISH, Release),
    ("a kernel nobody sees yet gets longer to settle", LOOKED, seen(kernel=None), FINISH, Ambiguous),
    ("a queued version is waited for", FLYING, seen(word="QUEUED", kernel=4), FINISH, StillRunning),
    ("a running version is waited for", FLYING, seen(word="RUNNING", kernel=4), PUSH, StillRunning),
    ("a running version is waited for also when asked again",
     FLYING, seen(word="RUNNING", kernel=4), AGAIN, StillRunning),
    ("an unknown status is waited for", FLYING, seen(word="THINKING", kernel=4), FINISH, StillRunning),
    ("a session that has not begun is waited for", FLYING, seen(word="NEVER_RUN", kernel=4), FINISH, StillRunning),
    ("COMPLETE ends the session", FLYING, seen(word="COMPLETE", kernel=4), FINISH, End("COMPLETE", "")),
    ("ERROR ends the session", FLYING, seen(word="ERROR", kernel=4, failure="boom"), FINISH, End("ERROR", "boom")),
    ("a time-out ends the session", FLYING, seen(word=TIMED_OUT, kernel=4), FINISH, End(TIMED_OUT, "")),
    ("right after a push an old COMPLETE is not believed",
     JUST_PUSHED, seen(word="COMPLETE", kernel=4), FINISH, StillRunning),
    ("once it was seen running, COMPLETE is believed at once",
     replace(JUST_PUSHED, version=replace(VERSION, word="RUNNING", time=NOW - 1)),
     seen(word="COMPLETE", kernel=4), FINISH, End("COMPLETE", "")),
    ("right after a push the kernel may be invisible", JUST_PUSHED, seen(kernel=None), FINISH, NotNow),
    ("a kernel that was deleted stops it", FLYING, seen(kernel=None), FINISH, EditedOutside),
    ("an ended session is pulled", replace(FRESH, version=ENDED), seen(), FINISH, Pull(4)),
    ("an errored session is pulled: its result counts",
     replace(FRESH, version=replace(ENDED, word="ERROR")), seen(), FINISH, Pull(4)),
    ("pulled outputs are judged", replace(FRESH, version=PULLED), seen(), FINISH, JudgeOutputs(4)),
    ("a version that ran without a source is pushed once more", INVALID, seen(kernel=4), FINISH, Push(4, resend=True)),
    ("...but not while the kernel is busy", INVALID, seen(kernel=4, word="RUNNING"), FINISH, StillRunning),
    ("...and never a third time", INVALID_TWICE, seen(kernel=4), FINISH, Fail),
    ("...nor with a change nobody reviewed", INVALID, seen(kernel=4, bundle=OTHER, disk=OTHER), FINISH, NotReviewed),
    ("a finished phase is left alone", DONE, seen(), FINISH, Done()),
    ("a finished phase that changed stays finished in watch", DONE, seen(bundle=OTHER, disk=OTHER), FINISH, Done()),
    ("pushing a finished, unchanged phase does nothing", DONE, seen(kernel=4), PUSH, Done()),
    ("pushing a finished, changed phase wants a review",
     DONE, seen(kernel=4, bundle=OTHER, disk=OTHER), PUSH, NotReviewed),
    ("pushing a finished, changed, reviewed phase pushes",
     replace(DONE, reviewed=frozenset({BUNDLE, OTHER})), seen(kernel=4, bundle=OTHER, disk=OTHER), PUSH, Push(4)),
    ("asked again, a finished phase is pushed", DONE, seen(kernel=4, word="COMPLETE"), AGAIN, Push(4)),
    ("a stale phase is pushed again", DONE, seen(kernel=4, stale=True), FINISH, Push(4)),
    ("an edit outside is not pushed over", DONE, seen(kernel=5, stale=True), FINISH, EditedOutside),
    ("asked again, it is", DONE, seen(kernel=5, stale=True), AGAIN, Push(5)),
    ("a failed phase says again why", BROKEN, seen(), FINISH, AdapterRefused),
    ("a failed, changed, reviewed phase is pushed",
     replace(BROKEN, reviewed=frozenset({OTHER})), seen(kernel=4, bundle=OTHER, disk=OTHER), FINISH, Push(4)),
    ("a failed phase is pushed again when asked", BROKEN, seen(kernel=4), AGAIN, Push(4)),
    ("an adopted phase is left alone", PhaseState(result=replace(RESULT, adopted=True)), seen(kernel=4), PUSH, Done()),
]  # fmt: skip


@pytest.mark.parametrize(("state", "look", "wish", "due"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_row(state: PhaseState, look: Observation, wish: Wish, due: Any) -> None:
    action = decide("phase2", state, look, wish)
    if isinstance(due, type) and issubclass(due, KchainError):
        assert isinstance(action, GiveUp | Wait), action
        assert type(action.error) is due, action
    elif isinstance(due, type):
        assert isinstance(action, due), action
    else:
        assert action == due


def test_waiting_and_stopping_are_not_mixed_up() -> None:
    waiting = {row[0] for row in ROWS if isinstance(decide("phase2", *row[1:4]), Wait)}
    assert all(
        any(word in name for word in ("waited", "read", "settle", "invisible", "not believed", "busy"))
        for name in waiting
    ), waiting


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_stop_says_what_to_do(row: Row) -> None:
    action = decide("phase2", *row[1:4])
    if isinstance(action, GiveUp | Fail):
        assert action.error.hint, action.error.message
        assert "phase" in action.error.message or "rank" in action.error.message


def test_a_recorded_failure_keeps_its_class_and_tells_both_ways_on() -> None:
    action = decide("phase2", BROKEN, seen(), FINISH)
    assert isinstance(action, GiveUp)
    assert (action.error.message, action.error.exit_code) == ("the rank is wrong", 1)
    assert "kchain review phase2" in action.error.hint
    assert "kchain push phase2 --again" in action.error.hint


@pytest.mark.parametrize(
    ("gates", "expected"), [('{"max_loss": 0.9}', JudgeOutputs), ("{}", GiveUp)], ids=["changed gate", "same gates"]
)
def test_a_changed_gate_is_asked_again_of_the_run_that_missed_it(gates: str, expected: type) -> None:
    missed = replace(BROKEN, failure=replace(FAILED, error="GateMissed"))
    assert isinstance(decide("phase2", missed, seen(gates=gates), FINISH), expected)


def test_a_failure_of_an_unknown_class_still_fails_the_phase() -> None:
    strange = replace(BROKEN, failure=replace(FAILED, error="OfALaterKchain"))
    action = decide("phase2", strange, seen(), FINISH)
    assert isinstance(action, GiveUp)
    assert type(action.error) is PhaseFailed


@pytest.mark.parametrize(
    ("error", "follows"),
    [
        (SessionCap("2 of 2 sessions"), Wait),
        (RateLimited("429"), Wait),
        (StillRunning("409"), Wait),
        (NotNow("data set not ready"), Wait),
        (QuotaUsedUp("30 h used", "refresh on Saturday"), GiveUp),
        (PushRefused("foreign slug"), Fail),
        (InputError("bad metadata"), GiveUp),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, KchainError) else value.__name__,
)
def test_refusals_that_pass_are_waited_for(error: KchainError, follows: type) -> None:
    action = after_refusal(error, 1, 30.0)
    assert isinstance(action, follows)
    assert action.error is error  # type: ignore[union-attr]


def test_a_refused_push_is_tried_again_ever_more_slowly() -> None:
    pauses = [after_refusal(SessionCap("full"), attempt, 30.0) for attempt in range(1, 30)]
    seconds = [pause.pause for pause in pauses if isinstance(pause, Wait)]
    assert len(seconds) == 29
    assert seconds == sorted(seconds)
    assert seconds[0] == 60.0
    assert seconds[-1] == LONGEST_PAUSE


@pytest.mark.parametrize(
    ("state", "look", "wish", "due"),
    [
        (OPEN, seen(), FINISH, Need.OUTCOME),
        (FLYING, seen(), AGAIN, Need.STATUS),
        (replace(FRESH, version=ENDED), seen(), FINISH, Need.NOTHING),
        (INVALID, seen(), FINISH, Need.KERNEL),
        (INVALID_TWICE, seen(), FINISH, Need.NOTHING),
        (DONE, seen(), FINISH, Need.NOTHING),
        (DONE, seen(stale=True), FINISH, Need.KERNEL),
        (DONE, seen(), AGAIN, Need.KERNEL),
        (BROKEN, seen(), FINISH, Need.NOTHING),
        (FRESH, seen(), PUSH, Need.KERNEL),
    ],
)
def test_the_target_is_asked_only_what_matters_now(state: PhaseState, look: Observation, wish: Wish, due: Need) -> None:
    assert need(state, look, wish) is due
