"""What `decide` is given and what it answers: wishes, observations, actions. Plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

from kchain.errors import KchainError
from kchain.kernel_metadata import Continuation


class Wish(Enum):
    """What the person asked for.

    FINISH: have a result; whatever has one stays (watch).
    PUSH: have the bundle of now pushed; a finished phase whose bundle is the same stays (push).
    AGAIN: push whatever there is (push --again).
    """

    FINISH = "finish"
    PUSH = "push"
    AGAIN = "again"


@dataclass(frozen=True)
class Parent:
    """An ancestor as it stands before its child is pushed.

    Attributes:
        ready: it has a result that is not stale.
        source: what will be mounted, owner/slug.
        verified: version that was verified; None where versions do not count.
        current: version that would be mounted now; None: it does not exist, or versions do not count.
    """

    phase: str
    ready: bool
    source: str
    verified: int | None
    current: int | None


@dataclass(frozen=True)
class Observation:
    """One observation. Parts that the state does not call for are not read and keep their default.

    Attributes:
        time: seconds since the epoch, of this observation.
        settle: seconds after which the target's answers have caught up with an effect.
        unread: why reading failed; then nothing else here counts.
        bundle: hash of the bundle as it renders now.
        gates: the phase's gates as they are now, as JSON.
        disk: hash of the bundle folder as it is on the disk.
        lint: errors that linting found.
        kernel: the kernel's current version; None: the target knows no such kernel.
        current_hash: hash of the bundle that the current version, or the first session of its run, was pushed from.
        ours: version newer than the open intent's that carries the intent's bundle.
        word: the target's status word, upper case; empty: not read.
        failure: the target's failure message.
        stale: the phase's result was trained on adapters that are no longer current.
        parents: its ancestors, root first.
        max_sessions: sessions that the bundle of now may take.
        continuation: how the next session would resume from the run's checkpoint; None: there is none.
        same_training: the bundle of now can resume from it: its parameters train the same.
        dataset: state of the data set that `continuation` names; None: the target knows none.
    """

    time: float
    settle: float
    unread: str = ""
    bundle: str = ""
    gates: str = ""
    disk: str = ""
    lint: tuple[str, ...] = ()
    kernel: int | None = None
    current_hash: str | None = None
    ours: int | None = None
    word: str = ""
    failure: str = ""
    stale: bool = False
    parents: tuple[Parent, ...] = ()
    max_sessions: int = 1
    continuation: Continuation | None = None
    same_training: bool = False
    dataset: str | None = None


@dataclass(frozen=True)
class Wait:
    """Nothing can be done now.

    Attributes:
        reason: for a person.
        error: what a command says that does not wait.
        word: the target's word, to be recorded when it changed; empty: none.
        live: a session of our version is queued or running.
        pause: seconds; 0 for the target's ordinary pause.
    """

    reason: str
    error: KchainError
    word: str = ""
    live: bool = False
    pause: float = 0.0


@dataclass(frozen=True)
class Look:
    """Record that an open intent's kernel is unchanged: the settling time starts."""

    kernel: int | None


@dataclass(frozen=True)
class Release:
    """An open intent had no effect."""

    reason: str


@dataclass(frozen=True)
class Found:
    """The target has our version although no answer said so."""

    version: int
    hash: str


@dataclass(frozen=True)
class Push:
    """Send the bundle; `before` is the version that is there now.

    Attributes:
        continuation: what the session resumes from; None: it begins a run.
        base: the reviewed bundle whose run goes on; empty: the one that renders now.
    """

    before: int | None
    resend: bool = False
    continuation: Continuation | None = None
    base: str = ""


@dataclass(frozen=True)
class UploadCheckpoint:
    """Make a private data set of the run's checkpoint."""

    ref: str


@dataclass(frozen=True)
class Lost:
    """The checkpoint that a version was to resume from was not mounted."""

    version: int
    reason: str


@dataclass(frozen=True)
class End:
    """Our version's session is over."""

    word: str
    failure: str


@dataclass(frozen=True)
class Pull:
    """Fetch what the session left."""

    version: int


@dataclass(frozen=True)
class JudgeOutputs:
    """Verify what was fetched and check the gates."""

    version: int


@dataclass(frozen=True)
class Fail:
    """Record the phase as failed."""

    error: KchainError


@dataclass(frozen=True)
class GiveUp:
    """Nothing more can be done until a person has acted."""

    error: KchainError


@dataclass(frozen=True)
class Done:
    """Nothing is left to do."""


Action = (
    Wait | Look | Release | Found | Push | UploadCheckpoint | Lost | End | Pull | JudgeOutputs | Fail | GiveUp | Done
)


class Reporter(Protocol):
    """Whoever listens to a driver. Called from the driver's thread, except `event`, which may come from another one."""

    def note(self, phase: str, text: str) -> None:
        """Something happened."""

    def waiting(self, phase: str, text: str) -> None:
        """Something is waited for; repeated as long as it lasts."""

    def event(self, phase: str, event: Mapping[str, Any]) -> None:
        """The running notebook said something: one of its `kchain: {...}` lines."""
