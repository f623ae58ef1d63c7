"""What is known about each phase: plain values, and what follows from them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kchain.kernel_metadata import Continuation

if TYPE_CHECKING:
    from kchain.phases import Chain


@dataclass(frozen=True)
class Event:
    """One event of the journal; `time` in seconds since the epoch."""

    number: int
    time: float
    phase: str
    kind: str
    detail: Mapping[str, Any]


@dataclass(frozen=True)
class Ancestor:
    """One step of a lineage: whose adapter, and the sha256 of its weights."""

    phase: str
    sha256: str


@dataclass(frozen=True)
class Intent:
    """A push that was about to be sent and whose outcome is not known yet.

    Attributes:
        before: the kernel's version at that time; None: there was no kernel.
        resend: it repeats a version whose sources were not mounted.
        looked: when the kernel was first seen unchanged after the attempt was over.
        base, max_sessions, continues: as of `Version`.
    """

    hash: str
    before: int | None
    lineage: tuple[Ancestor, ...]
    resend: bool
    time: float
    looked: float | None = None
    base: str = ""
    max_sessions: int = 1
    continues: Continuation | None = None


@dataclass(frozen=True)
class Version:
    """The kernel version of the last push.

    Attributes:
        invalid: sources the target could not mount.
        word: the target's last word for it; empty before the first.
        resend: it repeats a version whose sources were not mounted.
        ended: its session is over.
        folder: where its outputs lie, relative to the project; empty before they are pulled.
        base: the reviewed bundle that this one is a later session of; empty: it is the reviewed one itself.
        max_sessions: sessions that were approved with that bundle.
        continues: what it resumes from; None for a first session.
        lost: that was not mounted, so it did nothing.
    """

    number: int
    url: str
    hash: str
    lineage: tuple[Ancestor, ...]
    invalid: tuple[str, ...]
    resend: bool
    time: float
    word: str = ""
    ended: bool = False
    failure: str = ""
    folder: str = ""
    base: str = ""
    max_sessions: int = 1
    continues: Continuation | None = None
    lost: bool = False

    @property
    def approved(self) -> str:
        """The bundle whose review allowed this version."""
        return self.base or self.hash

    @property
    def session(self) -> int:
        """Which session of its run this is, from 1."""
        return 1 if self.continues is None else self.continues.session


@dataclass(frozen=True)
class Checkpoint:
    """Where a session stopped before the training was done; its files were verified.

    Attributes:
        stopped: why: "time" (its time limit) or "slow" (steps took much longer than planned).
        version: the kernel version that left it.
        session: which session of the run that was, from 1.
        sha256: of its manifest.json, which names every other file's.
        step, steps: optimizer steps that are done, and those of the whole training.
        folder: where its files lie, relative to the project.
        lineage: the adapters that it is trained on.
        seconds, pulled_bytes: of all sessions so far.
    """

    version: int
    session: int
    stopped: str
    sha256: str
    bytes: int
    step: int
    steps: int
    folder: str
    lineage: tuple[Ancestor, ...]
    seconds: float
    pulled_bytes: int

    @property
    def words(self) -> str:
        """`step 600 of 4,700`."""
        return f"step {self.step:,} of {self.steps:,}"


@dataclass(frozen=True)
class CheckpointUpload:
    """A private data set made, or about to be made, of a checkpoint.

    Attributes:
        answered: the target said that it took it.
        looked: when it was first seen missing although it may have been made.
        time: of the attempt, or of the answer.
    """

    ref: str
    time: float
    answered: bool = False
    looked: float | None = None


@dataclass(frozen=True)
class Result:
    """A verified adapter, or what a phase that trains nothing made of one.

    Attributes:
        version: kernel version that made it; None for one taken from a data set.
        kind, ref, source_folder: where later phases mount it from: "kernel" or "dataset", owner/slug, folder in it.
        adopted: it was trained elsewhere.
        lineage: adapters under it; None where that is not known.
        metrics: of the result file (loss_first, loss_last, token_accuracy, steps, ...).
        moved: of the result file (adapter_bytes_in, base_bytes), and what kchain downloaded (pulled_bytes).
        folder: where its files lie, relative to the project.
        found: what a phase that trains nothing found, in words; empty for an adapter.
    """

    version: int | None
    kind: str
    ref: str
    source_folder: str
    adopted: bool
    sha256: str
    bytes: int
    lineage: tuple[Ancestor, ...] | None
    pad_id: int | None
    metrics: Mapping[str, Any]
    moved: Mapping[str, Any]
    seconds: float | None
    folder: str
    time: float
    found: str = ""


@dataclass(frozen=True)
class PhaseFailure:
    """Why a phase failed.

    Attributes:
        hash: the bundle that did.
        error: name of the error class.
        gates: the gates that were asked, as JSON.
        again: a person has reviewed the same bundle since: the run resumes from its checkpoint.
    """

    hash: str
    version: int | None
    error: str
    reason: str
    hint: str
    gates: str
    time: float
    again: bool = False


@dataclass(frozen=True)
class PhaseState:
    """Everything the journal knows about one phase.

    Attributes:
        checkpoint: the newest of the run that is not finished.
        upload: the data set made of it.
        unmounted: this target once did not mount the phase's own last output.
    """

    reviewed: frozenset[str] = frozenset()
    intent: Intent | None = None
    version: Version | None = None
    failure: PhaseFailure | None = None
    result: Result | None = None
    refused: str = ""
    time: float | None = None
    checkpoint: Checkpoint | None = None
    upload: CheckpointUpload | None = None
    unmounted: bool = False


def lineage(rows: Iterable[Mapping[str, Any]]) -> tuple[Ancestor, ...]:
    """A lineage as the journal and the result file write it: a list of objects with phase and sha256."""
    return tuple(Ancestor(str(row["phase"]), str(row["sha256"])) for row in rows)


def rows(ancestors: Iterable[Ancestor]) -> list[dict[str, str]]:
    """A lineage as JSON; the inverse of `lineage`."""
    return [{"phase": ancestor.phase, "sha256": ancestor.sha256} for ancestor in ancestors]


def run_event(continues: Continuation | None, base: str, max_sessions: int) -> dict[str, Any]:
    """What `intent` and `pushed` tell about the run that a version belongs to.

    Args:
        base: the reviewed bundle of the run.
    """
    if continues is None:
        return {"base": "", "max_sessions": max_sessions, "continues": None}
    return {"base": base, "max_sessions": max_sessions, "continues": asdict(continues)}


def expected_lineage(chain: Chain, states: Mapping[str, PhaseState], phase: str) -> tuple[Ancestor, ...] | None:
    """The adapters a phase would be trained on now, root first; None while an ancestor has no result."""
    found = []
    for ancestor in chain.lineage(phase):
        result = states.get(ancestor.name, PhaseState()).result
        if result is None:
            return None
        found.append(Ancestor(ancestor.name, result.sha256))
    return tuple(found)


def is_stale(chain: Chain, states: Mapping[str, PhaseState], phase: str) -> bool:
    """Whether a phase was trained, to its end or to a checkpoint, on adapters that are no longer its ancestors'."""
    state = states.get(phase, PhaseState())
    trained = state.result or state.checkpoint
    if trained is None or trained.lineage is None:
        return False
    return trained.lineage != expected_lineage(chain, states, phase)


def goes_on(state: PhaseState) -> bool:
    """Whether the last version is done with although the phase is not: its run goes on in another session."""
    version, checkpoint = state.version, state.checkpoint
    if version is None or checkpoint is None:
        return False
    if version.lost:
        # The first run with a new source may find it empty; a data set is tried twice, and then given up.
        return not (version.resend and version.continues is not None and version.continues.kind == "dataset")
    # A run that crawls is left to the person: more sessions of it would cost more than was approved.
    in_time = checkpoint.stopped == "time" and version.session < version.max_sessions
    return checkpoint.version == version.number and in_time
