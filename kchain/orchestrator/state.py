"""What is known about each phase: the journal's events, folded. Pure.

Kinds of events and what they carry:

reviewed   hash                                        this bundle was shown to a person
intent     hash, before, lineage, resend               a push is about to be sent; `before` is the version seen before
looked     version                                     after an open intent: the kernel is unchanged so far
released   reason                                      the intent came to nothing
refused    error, reason                               the target refused the push; nothing was made
pushed     version, url, invalid, hash, lineage, resend, found    the target has this version (`found`: seen afterwards)
status     word                                        the target's word for the version changed
ended      word, failure                               the session is over
pulled     folder                                      its outputs lie here
verified   the fields of `Result`                      the adapter counts
failed     hash, version, error, reason, hint, gates   the phase failed, or missed a gate of these
adopted    the fields of `Result`                      an adapter trained elsewhere is this phase's result
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kchain.phases import Chain


@dataclass(frozen=True)
class Entry:
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
    """

    hash: str
    before: int | None
    lineage: tuple[Ancestor, ...]
    resend: bool
    time: float
    looked: float | None = None


@dataclass(frozen=True)
class Version:
    """The kernel version of the last push.

    Attributes:
        invalid: sources the target could not mount.
        word: the target's last word for it; empty before the first.
        resend: it repeats a version whose sources were not mounted.
        ended: its session is over.
        folder: where its outputs lie, relative to the project; empty before they are pulled.
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


@dataclass(frozen=True)
class Result:
    """A verified adapter.

    Attributes:
        version: kernel version that made it; None for one taken from a data set.
        kind, ref, source_folder: where later phases mount it from: "kernel" or "dataset", owner/slug, folder in it.
        adopted: it was trained elsewhere.
        lineage: adapters under it; None where that is not known.
        metrics: of the result file (loss_first, loss_last, token_accuracy, steps, ...).
        moved: of the result file (adapter_bytes_in, base_bytes), and what kchain downloaded (pulled_bytes).
        folder: where the adapter's files lie, relative to the project.
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


@dataclass(frozen=True)
class Failure:
    """Why a phase failed.

    Attributes:
        hash: the bundle that did.
        error: name of the error class.
        gates: the gates that were asked, as JSON.
    """

    hash: str
    version: int | None
    error: str
    reason: str
    hint: str
    gates: str
    time: float


@dataclass(frozen=True)
class PhaseState:
    """Everything the journal knows about one phase."""

    reviewed: frozenset[str] = frozenset()
    intent: Intent | None = None
    version: Version | None = None
    failure: Failure | None = None
    result: Result | None = None
    refused: str = ""
    time: float | None = None


def fold(entries: Iterable[Entry]) -> dict[str, PhaseState]:
    """The states after these events, by phase.

    Raises:
        KeyError: an event of an unknown kind, or one that lacks a part: the journal is damaged.
    """
    states: dict[str, PhaseState] = {}
    for entry in entries:
        before = states.get(entry.phase, PhaseState())
        states[entry.phase] = replace(_STEPS[entry.kind](before, entry), time=entry.time)
    return states


def lineage(rows: Iterable[Mapping[str, Any]]) -> tuple[Ancestor, ...]:
    """A lineage as the journal and the result file write it: a list of objects with phase and sha256."""
    return tuple(Ancestor(str(row["phase"]), str(row["sha256"])) for row in rows)


def rows(ancestors: Iterable[Ancestor]) -> list[dict[str, str]]:
    """A lineage as JSON; the inverse of `lineage`."""
    return [{"phase": ancestor.phase, "sha256": ancestor.sha256} for ancestor in ancestors]


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
    """Whether a finished phase was trained on adapters that are no longer those of its ancestors."""
    result = states.get(phase, PhaseState()).result
    if result is None or result.lineage is None:
        return False
    return result.lineage != expected_lineage(chain, states, phase)


def _reviewed(state: PhaseState, entry: Entry) -> PhaseState:
    return replace(state, reviewed=state.reviewed | {str(entry.detail["hash"])})


def _intent(state: PhaseState, entry: Entry) -> PhaseState:
    detail = entry.detail
    intent = Intent(detail["hash"], detail["before"], lineage(detail["lineage"]), detail["resend"], entry.time)
    return replace(state, intent=intent, refused="")


def _looked(state: PhaseState, entry: Entry) -> PhaseState:
    if state.intent is None:
        return state
    return replace(state, intent=replace(state.intent, looked=entry.time))


def _released(state: PhaseState, entry: Entry) -> PhaseState:
    return replace(state, intent=None)


def _refused(state: PhaseState, entry: Entry) -> PhaseState:
    return replace(state, intent=None, refused=str(entry.detail["reason"]))


def _pushed(state: PhaseState, entry: Entry) -> PhaseState:
    detail = entry.detail
    version = Version(
        number=int(detail["version"]),
        url=detail["url"],
        hash=detail["hash"],
        lineage=lineage(detail["lineage"]),
        invalid=tuple(detail["invalid"]),
        resend=detail["resend"],
        time=entry.time,
    )
    # A new version takes the place of the old one's output: the old result can no longer be mounted.
    return replace(state, intent=None, version=version, failure=None, result=None, refused="")


def _status(state: PhaseState, entry: Entry) -> PhaseState:
    return _on_version(state, word=str(entry.detail["word"]))


def _ended(state: PhaseState, entry: Entry) -> PhaseState:
    detail = entry.detail
    return _on_version(state, word=str(detail["word"]), failure=str(detail["failure"]), ended=True)


def _pulled(state: PhaseState, entry: Entry) -> PhaseState:
    return _on_version(state, folder=str(entry.detail["folder"]))


def _on_version(state: PhaseState, **changes: Any) -> PhaseState:
    return state if state.version is None else replace(state, version=replace(state.version, **changes))


def _failed(state: PhaseState, entry: Entry) -> PhaseState:
    detail = entry.detail
    told = {key: detail[key] for key in ("hash", "version", "error", "reason", "hint", "gates")}
    failure = Failure(**told, time=entry.time)
    return replace(state, failure=failure, result=None)


def _verified(state: PhaseState, entry: Entry) -> PhaseState:
    return replace(state, failure=None, result=_result(entry, adopted=False))


def _adopted(state: PhaseState, entry: Entry) -> PhaseState:
    # What was pushed before no longer matters: the result is another one.
    return replace(state, intent=None, version=None, failure=None, result=_result(entry, adopted=True))


def _result(entry: Entry, *, adopted: bool) -> Result:
    detail = entry.detail
    return Result(
        version=detail["version"],
        kind=detail["kind"],
        ref=detail["ref"],
        source_folder=detail["source_folder"],
        adopted=adopted,
        sha256=detail["sha256"],
        bytes=int(detail["bytes"]),
        lineage=None if detail["lineage"] is None else lineage(detail["lineage"]),
        pad_id=detail["pad_id"],
        metrics=detail["metrics"],
        moved=detail["moved"],
        seconds=detail["seconds"],
        folder=detail["folder"],
        time=entry.time,
    )


_STEPS = {
    "reviewed": _reviewed,
    "intent": _intent,
    "looked": _looked,
    "released": _released,
    "refused": _refused,
    "pushed": _pushed,
    "status": _status,
    "ended": _ended,
    "pulled": _pulled,
    "verified": _verified,
    "failed": _failed,
    "adopted": _adopted,
}
