"""Sessions after the first: which bundle goes on, from what, and what has to be there before. Pure.

A checkpoint is mounted as the kernel's own last output where the target does that, and as a private data set where it
does not, or where the last output is another one than the checkpoint's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slugify import slugify

from kchain.errors import InputError, KchainError, NotNow, PhaseFailed
from kchain.kernel_metadata import Continuation
from kchain.orchestrator.driving.actions import Action, GiveUp, Look, Observation, UploadCheckpoint, Wait, Wish
from kchain.orchestrator.journal.state import PhaseState, Version
from kchain.runtime.contract import CHECKPOINT

# Settling times that something new (a kernel, a data set) is given to show up.
NEW_THING = 3
_READY = "READY"
_BROKEN = ("FAILED", "DELETED")


def content_slug(name: str, sha256: str) -> str:
    """A slug for a data set of these contents; Kaggle takes 6 to 50 characters.

    With the hash, other contents never meet the data set of earlier ones, and the same contents need no second one.
    """
    return f"{slugify(name)[:41].strip('-')}-{sha256[:8]}"


def next_session(states: Mapping[str, PhaseState], phase: str, kernel: str, dataset: str) -> Continuation | None:
    """How the next session of a phase would resume; None where there is no checkpoint.

    Args:
        kernel: `owner/slug` of the phase's kernel.
        dataset: what a data set of the checkpoint would be called, without its hash: `owner/name`.
    """
    state = states.get(phase, PhaseState())
    checkpoint, version = state.checkpoint, state.version
    if checkpoint is None or version is None:
        return None
    session = checkpoint.session + 1
    mounts = not any(each.unmounted for each in states.values())
    if mounts and checkpoint.version == version.number and version.word == "COMPLETE":
        return Continuation(session, "kernel", kernel, CHECKPOINT, checkpoint.sha256)
    owner, _, name = dataset.partition("/")
    return Continuation(session, "dataset", f"{owner}/{content_slug(name, checkpoint.sha256)}", "", checkpoint.sha256)


@dataclass(frozen=True)
class Plan:
    """What a push would send: the bundle `base` (empty: the one that renders now), going on from `continuation`."""

    base: str = ""
    continuation: Continuation | None = None


def what_to_push(phase: str, state: PhaseState, seen: Observation, wish: Wish) -> Plan | GiveUp:
    """Whether the next push goes on or begins anew, and under which review.

    What renders now and was reviewed goes before what the run began with; what was not reviewed changes nothing.
    """
    version, checkpoint = state.version, state.checkpoint
    if wish is Wish.AGAIN or version is None or checkpoint is None or seen.stale or seen.continuation is None:
        return Plan()
    unread = wish is Wish.FINISH and state.failure is None and seen.bundle not in state.reviewed
    same = seen.bundle == version.approved
    if not (same or unread or seen.same_training):
        return Plan()
    most = version.max_sessions if same or unread else seen.max_sessions
    if checkpoint.session >= most:
        return GiveUp(
            InputError(
                f"{phase} has used its {most} sessions and stands at {checkpoint.words}",
                f"raise training.max_sessions and kchain review {phase}: it resumes from there; "
                f"from the beginning: kchain push {phase} --again",
            )
        )
    return Plan(version.approved if same or unread else "", seen.continuation)


def repeats(version: Version | None, continuation: Continuation) -> bool:
    """Whether a push tries once more what was not mounted the last time."""
    return version is not None and version.lost and version.continues == continuation


def data_set(phase: str, state: PhaseState, continuation: Continuation, seen: Observation) -> Action | None:
    """What a data set calls for before it can be mounted; None: it is ready."""
    ref, upload = continuation.ref, state.upload
    if seen.dataset == _READY:
        return None
    if seen.dataset in _BROKEN:
        return GiveUp(
            PhaseFailed(
                f"data set {ref}, the checkpoint of {phase}, is {seen.dataset}",
                f"delete it on the target, then: kchain watch; from the beginning: kchain push {phase} --again",
            )
        )
    if seen.dataset is not None:
        return _wait(f"data set {ref}, the checkpoint of {phase}, is being processed ({seen.dataset})")
    if upload is None or upload.ref != ref:
        return UploadCheckpoint(ref)
    if not upload.answered and upload.looked is None:
        return Look(None)
    left = (upload.looked or upload.time) + NEW_THING * seen.settle - seen.time
    return (
        _wait(f"data set {ref} does not show up yet; looking again for {left:.0f} s")
        if left > 0
        else UploadCheckpoint(ref)
    )


def _wait(reason: str) -> Wait:
    return Wait(reason, NotNow(reason, "repeat the command: it continues from here"))


def never_mounted(phase: str, version: Version) -> KchainError:
    """The failure of a phase whose checkpoint no session finds."""
    assert version.continues is not None
    return PhaseFailed(
        f"{phase} cannot resume: its checkpoint, {version.continues.source}, was not mounted",
        "check on its page that it exists and is yours",
    )


def way_on(phase: str, state: PhaseState) -> str:
    """What to do about a failure, for a phase that has a checkpoint to resume from; empty for another."""
    version, checkpoint = state.version, state.checkpoint
    if version is None or checkpoint is None:
        return ""
    again = f"from the beginning: kchain push {phase} --again"
    if checkpoint.session >= version.max_sessions:
        return f"with a higher training.max_sessions, kchain review {phase} resumes from {checkpoint.words}; {again}"
    session = f"session {checkpoint.session + 1} of {version.max_sessions}"
    return (
        f"once the cause is gone: kchain review {phase}, then kchain watch: it resumes from {checkpoint.words}, "
        f"as {session}; {again}"
    )
