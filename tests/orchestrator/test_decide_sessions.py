"""The rows of the table about phases of several sessions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_decide_rows import (
    AGAIN,
    BUNDLE,
    ENDED,
    FINISH,
    FRESH,
    LINEAGE,
    NOW,
    OTHER,
    PARENT,
    PULLED,
    PUSH,
    SETTLE,
    VERSION,
    seen,
)

from kchain.errors import EditedOutside, GateMissed, InputError, KchainError, NotNow, NotReviewed, PhaseFailed
from kchain.kernel_metadata import Continuation
from kchain.orchestrator.driving.actions import (
    GiveUp,
    JudgeOutputs,
    Look,
    Lost,
    Observation,
    Push,
    UploadCheckpoint,
    Wait,
    Wish,
)
from kchain.orchestrator.driving.continuation import content_slug, next_session
from kchain.orchestrator.driving.decide import Need, decide, need
from kchain.orchestrator.journal.state import Checkpoint, CheckpointUpload, PhaseFailure, PhaseState

SHA = "a" * 64
KERNEL, DATASET = "me/phase-two", "me/chain-phase2-checkpoint-aaaaaaaa"
BY_KERNEL = Continuation(2, "kernel", KERNEL, "checkpoint", SHA)
BY_DATASET = Continuation(2, "dataset", DATASET, "", SHA)

FIRST = replace(PULLED, max_sessions=3)
REACHED = Checkpoint(4, 1, "time", SHA, 100, 600, 4700, "runs/v4/checkpoint", LINEAGE, 9.0, 100)
PAUSED = replace(FRESH, version=FIRST, checkpoint=REACHED)
SECOND = replace(ENDED, number=5, hash=OTHER, base=BUNDLE, max_sessions=3, continues=BY_KERNEL)
PUSHED_SECOND = replace(PAUSED, version=SECOND)
LOST = replace(PAUSED, version=replace(SECOND, lost=True, folder="runs/v5"), unmounted=True)
LOST_DATASET = replace(PAUSED, version=replace(SECOND, continues=BY_DATASET, lost=True, folder="runs/v5"))
LOST_TWICE = replace(LOST_DATASET, version=replace(LOST_DATASET.version, resend=True))  # type: ignore[type-var]
LAST = replace(PAUSED, version=replace(SECOND, continues=replace(BY_KERNEL, session=3), folder="runs/v5"),
               checkpoint=replace(REACHED, version=5, session=3))  # fmt: skip
FAILED = PhaseFailure(BUNDLE, 5, "PhaseFailed", "phase2 failed", "mend it", "{}", NOW - 5)
STOPPED = replace(PUSHED_SECOND, version=replace(SECOND, folder="runs/v5"), failure=FAILED)
USED_UP = replace(LAST, failure=replace(FAILED, error="GateMissed"))
UPLOADING = CheckpointUpload(DATASET, NOW - 5)


def going(kind: Continuation = BY_KERNEL, **what: Any) -> Observation:
    """An observation between two sessions, in which everything is ready for the next one."""
    return seen(**{"kernel": 4, "word": "COMPLETE", "continuation": kind, "same_training": True, "max_sessions": 3,
                   **what})  # fmt: skip


Row = tuple[str, PhaseState, Observation, Wish, object]
ROWS: list[Row] = [
    ("a phase that its time limit ended goes on", PAUSED, going(), FINISH, Push(4, False, BY_KERNEL, BUNDLE)),
    ("...also when it is pushed", PAUSED, going(), PUSH, Push(4, False, BY_KERNEL, BUNDLE)),
    ("...but asked again it begins anew", PAUSED, going(), AGAIN, Push(4)),
    ("...not before its parent is the verified one",
     PAUSED, going(parents=(replace(PARENT, current=8),)), FINISH, EditedOutside),
    ("...not over someone's edit", PAUSED, going(kernel=5), FINISH, EditedOutside),
    ("...not while something of it runs", PAUSED, going(word="RUNNING"), FINISH, NotNow),
    ("...under the review it has, whatever renders by now",
     PAUSED, going(bundle=OTHER, disk="", lint=("KC101",)), FINISH, Push(4, False, BY_KERNEL, BUNDLE)),
    ("...but pushing what changed wants a review", PAUSED, going(bundle=OTHER, disk=OTHER), PUSH, NotReviewed),
    ("...and nothing that nobody reviewed", replace(PAUSED, reviewed=frozenset()), going(), FINISH, NotReviewed),
    ("a reviewed change of the training begins anew",
     replace(PAUSED, reviewed=frozenset({BUNDLE, OTHER})),
     going(bundle=OTHER, disk=OTHER, same_training=False), FINISH, Push(4)),
    ("reviewed newer code goes on",
     replace(PAUSED, reviewed=frozenset({BUNDLE, OTHER})),
     going(bundle=OTHER, disk=OTHER), FINISH, Push(4, False, BY_KERNEL)),
    ("another adapter below makes it begin anew", PAUSED, going(stale=True), FINISH, Push(4)),
    ("a data set is made first", PAUSED, going(BY_DATASET), FINISH, UploadCheckpoint(DATASET)),
    ("a data set that is there is not made again",
     PAUSED, going(BY_DATASET, dataset="READY"), FINISH, Push(4, False, BY_DATASET, BUNDLE)),
    ("a data set in the making is waited for", PAUSED, going(BY_DATASET, dataset="BLOBS_RECEIVED"), FINISH, NotNow),
    ("a broken data set stops it", PAUSED, going(BY_DATASET, dataset="FAILED"), FINISH, PhaseFailed),
    ("an upload of unknown outcome is looked for", replace(PAUSED, upload=UPLOADING), going(BY_DATASET), FINISH,
     Look(None)),
    ("...and given time to show up",
     replace(PAUSED, upload=replace(UPLOADING, looked=NOW - SETTLE)), going(BY_DATASET), FINISH, NotNow),
    ("...as is one that the target took",
     replace(PAUSED, upload=replace(UPLOADING, answered=True)), going(BY_DATASET), FINISH, NotNow),
    ("...before it is repeated",
     replace(PAUSED, upload=replace(UPLOADING, looked=NOW - 3 * SETTLE - 1)), going(BY_DATASET), FINISH,
     UploadCheckpoint(DATASET)),
    ("the upload of another checkpoint does not count",
     replace(PAUSED, upload=replace(UPLOADING, ref="me/other", answered=True)), going(BY_DATASET), FINISH,
     UploadCheckpoint(DATASET)),
    ("a session without its checkpoint is repeated with a data set",
     LOST, going(BY_DATASET, kernel=5, word="ERROR", dataset="READY"), FINISH, Push(5, False, BY_DATASET, BUNDLE)),
    ("...which is tried once more",
     LOST_DATASET, going(BY_DATASET, kernel=5, word="ERROR", dataset="READY"), FINISH,
     Push(5, True, BY_DATASET, BUNDLE)),
    ("...and never a third time", LOST_TWICE, going(BY_DATASET, kernel=5, word="ERROR", dataset="READY"), FINISH,
     PhaseFailed),
    ("its own output refused as a source, a session is not asked further",
     replace(PUSHED_SECOND, version=replace(SECOND, invalid=(f"kernel {KERNEL}",))), seen(kernel=5), FINISH,
     Lost(5, "the target did not take it as a source")),
    ("a later session's outputs are judged",
     replace(PUSHED_SECOND, version=replace(SECOND, folder="runs/v5")), seen(), FINISH, JudgeOutputs(5)),
    ("the last session's result is what it reached", LAST, seen(), FINISH, JudgeOutputs(5)),
    ("a session that crawled is judged as it is",
     replace(PAUSED, checkpoint=replace(REACHED, stopped="slow")), seen(), FINISH, JudgeOutputs(4)),
    ("a session that failed stops the run", STOPPED, going(BY_DATASET, kernel=5), FINISH, PhaseFailed),
    ("...until it was reviewed again",
     replace(STOPPED, failure=replace(FAILED, again=True)), going(BY_DATASET, kernel=5, dataset="READY"), FINISH,
     Push(5, False, BY_DATASET, BUNDLE)),
    ("...or pushed from the beginning", STOPPED, going(BY_DATASET, kernel=5), AGAIN, Push(5)),
    ("sessions that are used up say so", USED_UP, going(kernel=5, gates="{}"), FINISH, GateMissed),
    ("...with more of them the run goes on",
     replace(USED_UP, reviewed=frozenset({BUNDLE, OTHER})),
     going(replace(BY_KERNEL, session=4), kernel=5, bundle=OTHER, disk=OTHER, max_sessions=4), FINISH,
     Push(5, False, replace(BY_KERNEL, session=4))),
    ("...a change that leaves none starts nothing",
     replace(USED_UP, reviewed=frozenset({BUNDLE, OTHER})),
     going(replace(BY_KERNEL, session=4), kernel=5, bundle=OTHER, disk=OTHER), FINISH, InputError),
]  # fmt: skip


@pytest.mark.parametrize(("state", "look", "wish", "due"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_session_row(state: PhaseState, look: Observation, wish: Wish, due: Any) -> None:
    action = decide("phase2", state, look, wish)
    if isinstance(due, type) and issubclass(due, KchainError):
        assert not isinstance(action, Push | UploadCheckpoint), action
        assert isinstance(action.error, due), action  # type: ignore[union-attr]
    else:
        assert action == due


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_every_session_stop_says_what_to_do(row: Row) -> None:
    action = decide("phase2", *row[1:4])
    if isinstance(action, GiveUp):
        assert action.error.hint, action.error.message


def test_while_waiting_nothing_is_pushed_and_one_command_goes_on() -> None:
    waiting = [action for row in ROWS if isinstance(action := decide("phase2", *row[1:4]), Wait)]
    assert len(waiting) == 4
    assert all(action.error.exit_code == 3 for action in waiting)


@pytest.mark.parametrize(
    ("state", "due"),
    [(PAUSED, Need.KERNEL), (LOST, Need.KERNEL), (LAST, Need.NOTHING), (STOPPED, Need.NOTHING),
     (LOST_TWICE, Need.NOTHING)],
)  # fmt: skip
def test_between_two_sessions_the_target_is_asked_what_a_push_needs(state: PhaseState, due: Need) -> None:
    assert need(state, going(), FINISH) is due


def how(state: PhaseState, **others: PhaseState) -> Continuation | None:
    return next_session({"phase2": state, **others}, "phase2", KERNEL, "me/chain-phase2-checkpoint")


def test_the_own_output_is_tried_first() -> None:
    assert how(PAUSED) == BY_KERNEL
    assert how(FRESH) is None


@pytest.mark.parametrize(
    ("state", "others"),
    [
        (replace(PAUSED, unmounted=True), {}),
        (PAUSED, {"phase1": PhaseState(unmounted=True)}),
        (STOPPED, {}),
        (replace(PAUSED, version=replace(FIRST, word="CANCEL_ACKNOWLEDGED")), {}),
    ],
    ids=["not mounted before", "not mounted in another phase", "the last output is another", "it was cut off"],
)
def test_else_a_data_set_is_made(state: PhaseState, others: dict[str, PhaseState]) -> None:
    assert how(state, **others) == BY_DATASET


def test_the_name_of_a_data_set_fits_kaggle_and_tells_contents_apart() -> None:
    long = content_slug("a chain with a very long name - and a phase of a long name - checkpoint", SHA)
    assert 6 <= len(long) <= 50
    assert content_slug("x", SHA) != content_slug("x", "b" * 64)
    assert len(content_slug("x", SHA)) >= 6


def test_a_version_of_one_session_knows_no_other() -> None:
    assert (VERSION.session, VERSION.approved, VERSION.max_sessions) == (1, BUNDLE, 1)
    assert (SECOND.session, SECOND.approved) == (2, BUNDLE)
