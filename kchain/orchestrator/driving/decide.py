"""What to do next with one phase: a table of rows, read from the top. Pure: no clock, no file, no network.

`decide(phase, state, seen, wish)` gets what the journal knows and what was just observed, and gives one action. After
each action the driver observes again, so a crash between any two steps loses nothing.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from kchain import errors
from kchain.client.answers import IDLE, LIVE, OVER
from kchain.errors import (
    Ambiguous,
    EditedOutside,
    GateMissed,
    InputError,
    KchainError,
    NotNow,
    NotReviewed,
    PhaseFailed,
    PushRefused,
    QuotaUsedUp,
    StillRunning,
    Unreachable,
)
from kchain.orchestrator.driving.actions import (
    Action,
    Done,
    End,
    Fail,
    Found,
    GiveUp,
    JudgeOutputs,
    Look,
    Lost,
    Observation,
    Pull,
    Push,
    Release,
    Wait,
    Wish,
)
from kchain.orchestrator.driving.continuation import (
    NEW_THING,
    Plan,
    data_set,
    never_mounted,
    repeats,
    way_on,
    what_to_push,
)
from kchain.orchestrator.journal.state import Intent, PhaseState, Version, goes_on

# Seconds between two tries of a refused push, at most.
LONGEST_PAUSE = 600.0


class Need(Enum):
    """What has to be read before a decision; saves the target every question that does not matter now."""

    NOTHING = "nothing"
    OUTCOME = "outcome of an open push"
    STATUS = "status of our version"
    KERNEL = "everything a push depends on"


def need(state: PhaseState, seen: Observation, wish: Wish) -> Need:
    """What to read; `seen` holds what is known without asking the target (bundle, stale)."""
    if state.intent is not None:
        return Need.OUTCOME
    if state.version is not None and not state.version.ended:
        return Need.STATUS
    if _unjudged(state):
        assert state.version is not None
        return Need.KERNEL if state.version.invalid and not state.version.resend else Need.NOTHING
    return Need.KERNEL if _standing("", state, seen, wish) is None else Need.NOTHING


def decide(phase: str, state: PhaseState, seen: Observation, wish: Wish) -> Action:
    """The next action for one phase."""
    if seen.unread:
        reason = f"{seen.unread}; asking again"
        return Wait(reason, Unreachable(seen.unread, "repeat the command: it continues from here"))
    if state.intent is not None:
        return _open_intent(phase, state.intent, seen, wish)
    if state.version is not None and not state.version.ended:
        return _in_flight(phase, state.version, seen)
    if _unjudged(state):
        assert state.version is not None
        return _ended(phase, state, state.version, seen, wish)
    if (standing := _standing(phase, state, seen, wish)) is not None:
        return standing
    return _to_push(phase, state, seen, wish)


def _unjudged(state: PhaseState) -> bool:
    open_ = state.version is not None and state.failure is None and state.result is None
    return open_ and not goes_on(state)


def _open_intent(phase: str, intent: Intent, seen: Observation, wish: Wish) -> Action:
    """A push went out, or was about to, and its outcome is unknown: look before acting again."""
    if seen.ours is not None:
        return Found(seen.ours, intent.hash)
    if seen.kernel is not None and seen.kernel > (intent.before or 0):
        if wish is Wish.AGAIN:
            return Release(f"version {seen.kernel} was made by someone else; pushing again as asked")
        return GiveUp(_edited(phase, seen.kernel, intent.before))
    if intent.looked is None:
        return Look(seen.kernel)
    # After its first push a kernel may stay invisible for longer than an edit of one that is there.
    patience = seen.settle * (NEW_THING if seen.kernel is None else 1)
    left = intent.looked + patience - seen.time
    if left > 0:
        reason = f"the last push of {phase} has no known outcome; looking again for {left:.0f} s before it is repeated"
        return Wait(reason, Ambiguous(reason, "repeat the command: it continues from here"))
    return Release("the kernel stayed unchanged for the target's settling time")


def _in_flight(phase: str, version: Version, seen: Observation) -> Action:
    name = f"{phase} version {version.number}"
    if seen.word in LIVE:
        return _running(f"{name} is {seen.word.lower()}", seen.word)
    if seen.kernel is None:
        if seen.time < version.time + seen.settle:
            return Wait(f"{name} does not show up yet", NotNow(f"{name} does not show up yet", "try again in a minute"))
        return GiveUp(
            EditedOutside(f"the kernel of {phase} is gone, or no longer yours", f"kchain push {phase} --again")
        )
    if seen.word in OVER:
        # Right after a push the target may still speak of the version before it.
        if version.word or seen.time >= version.time + seen.settle:
            return End(seen.word, seen.failure)
        return Wait(f"{name}: waiting for its first sign of life", StillRunning(f"{name} has not started yet"))
    if seen.word in IDLE:
        return _running(f"{name} is not running yet", "")
    return _running(f"{name} has the unknown status {seen.word!r}; waiting until it is a known one", seen.word)


def _running(reason: str, word: str) -> Wait:
    return Wait(reason, StillRunning(reason, "wait for it: kchain watch"), word, live=True)


def _ended(phase: str, state: PhaseState, version: Version, seen: Observation, wish: Wish) -> Action:
    if version.lost:
        return Fail(never_mounted(phase, version))
    if version.continues is not None and version.continues.source in version.invalid:
        return Lost(version.number, "the target did not take it as a source")
    if not version.invalid:
        return JudgeOutputs(version.number) if version.folder else Pull(version.number)
    missing = ", ".join(version.invalid)
    if version.resend:
        return Fail(
            PushRefused(
                f"{phase} was pushed twice and both times ran without {missing}",
                "check that each exists, is ready, and is public or yours",
            )
        )
    # The first push may have come before a new source was ready; one more try costs a minute.
    known = replace(state, reviewed=state.reviewed | {version.approved})
    return _to_push(phase, known, seen, wish, resend=True)


def _standing(phase: str, state: PhaseState, seen: Observation, wish: Wish) -> Action | None:
    """What a finished or failed phase says; None: it is to be pushed."""
    if wish is Wish.AGAIN:
        return None
    if state.failure is not None:
        failure = state.failure
        if seen.bundle not in ("", failure.hash):
            return None
        if failure.error == GateMissed.__name__ and seen.gates != failure.gates:
            # Gates are no part of the bundle: changed ones are asked again of the result that is there.
            assert failure.version is not None
            return JudgeOutputs(failure.version)
        if failure.again:
            return None
        hint = failure.hint or f"read its log: kchain logs {phase}"
        ways = way_on(phase, state) or f"to run the same again: kchain push {phase} --again"
        return GiveUp(
            failure_error(failure.error, failure.reason, f"{hint}\nafter a change: kchain review {phase}; {ways}")
        )
    if state.result is None or seen.stale:
        return None
    changed = state.version is not None and seen.bundle not in ("", state.version.approved)
    return None if wish is Wish.PUSH and changed else Done()


def _to_push(phase: str, state: PhaseState, seen: Observation, wish: Wish, *, resend: bool = False) -> Action:
    if (blocked := _blocked_by_parents(phase, seen)) is not None:
        return blocked
    new_to_journal = state.version is None and state.result is None and wish is not Wish.AGAIN
    if new_to_journal and seen.kernel is not None and seen.current_hash == seen.bundle:
        # Pushed by hand, by another checkout, or before the journal was lost: the very same bundle is there already.
        return Found(seen.kernel, seen.bundle)
    plan = what_to_push(phase, state, seen, wish)
    if isinstance(plan, GiveUp):
        return plan
    if (blocked := _blocked(phase, state, seen, plan)) is not None:
        return blocked
    if seen.word and seen.word not in OVER | IDLE:
        return _other_running(phase, seen)
    ours = state.version.number if state.version is not None else None
    if ours is not None and seen.kernel is not None and seen.kernel > ours and wish is not Wish.AGAIN:
        return GiveUp(_edited(phase, seen.kernel, ours))
    return _send(phase, state, seen, plan, resend)


def _send(phase: str, state: PhaseState, seen: Observation, plan: Plan, resend: bool) -> Action:
    going_on = plan.continuation
    if going_on is None:
        return Push(seen.kernel, resend)
    if going_on.kind == "dataset" and (first := data_set(phase, state, going_on, seen)) is not None:
        return first
    return Push(seen.kernel, resend or repeats(state.version, going_on), going_on, plan.base)


def _other_running(phase: str, seen: Observation) -> Wait:
    reason = f"version {seen.kernel} of the kernel of {phase} is {seen.word.lower()}; pushing when it has ended"
    return Wait(reason, StillRunning(reason, "leave out --no-wait, or try again later"))


def _blocked(phase: str, state: PhaseState, seen: Observation, plan: Plan) -> GiveUp | None:
    """Why the bundle may not be sent. A run that goes on sends what its review allowed, whatever renders by now."""
    if plan.base and plan.base in state.reviewed:
        return None
    if seen.lint:
        return GiveUp(
            InputError(f"the bundle of {phase} does not lint:\n" + "\n".join(seen.lint), f"kchain review {phase}")
        )
    if seen.disk != seen.bundle:
        return GiveUp(
            NotReviewed(
                f"the bundle folder of {phase} is not what its phase file renders to now",
                f"render and read it again: kchain review {phase}",
            )
        )
    if seen.bundle not in state.reviewed:
        return GiveUp(
            NotReviewed(
                f"{phase} has not been reviewed as it is now", f"read it: kchain review {phase}  (or add --yes)"
            )
        )
    return None


def _blocked_by_parents(phase: str, seen: Observation) -> Action | None:
    for parent in seen.parents:
        if not parent.ready:
            return GiveUp(
                NotNow(
                    f"{phase} builds on {parent.phase}, which has no verified result yet",
                    f"run the chain: kchain watch; or take over an adapter: kchain adopt {parent.phase} --help",
                )
            )
        if parent.current != parent.verified:
            now = "is gone" if parent.current is None else f"is at version {parent.current} now"
            return GiveUp(
                EditedOutside(
                    f"{parent.source}, the result of {parent.phase}, {now}; version {parent.verified} was verified",
                    f"run {parent.phase} again (kchain push {parent.phase} --again) or take what is there: "
                    f"kchain adopt {parent.phase} --help",
                )
            )
    return None


def _edited(phase: str, current: int, known: int | None) -> EditedOutside:
    since = "there was no kernel before" if known is None else f"kchain knows version {known}"
    return EditedOutside(
        f"the kernel of {phase} is at version {current}, which kchain did not push ({since})",
        f"look at it on the target; to push over it: kchain push {phase} --again",
    )


def failure_error(name: str, reason: str, hint: str) -> KchainError:
    """A recorded failure as the error it was; a class that this kchain does not know reads as PhaseFailed."""
    error: KchainError = getattr(errors, name, PhaseFailed)(reason, hint)
    return error


def after_refusal(error: KchainError, attempt: int, poll_seconds: float) -> Wait | GiveUp | Fail:
    """What follows when the target refused a push; `attempt` counts the refusals in a row from 1.

    Caps, rate limits, a running version and an unready data set pass by themselves: they are waited for, twice as long
    each time, at most `LONGEST_PAUSE`. A used-up quota takes days and is left to the person.
    """
    if isinstance(error, NotNow) and not isinstance(error, QuotaUsedUp):
        pause = float(min(poll_seconds * 2 ** min(attempt, 10), LONGEST_PAUSE))
        return Wait(f"{error.message}; trying again in {pause:.0f} s", error, pause=pause)
    return Fail(error) if isinstance(error, PushRefused) else GiveUp(error)
