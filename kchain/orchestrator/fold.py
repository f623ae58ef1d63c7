"""From the journal's events to what is known about each phase. Pure.

Kinds of events and what they carry:

reviewed   hash                                        this bundle was shown to a person
intent     hash, before, lineage, resend               a push is about to be sent; `before` is the version seen before
looked     version                                     after an open intent or upload: nothing is there so far
released   reason                                      the intent came to nothing
refused    error, reason                               the target refused the push or the upload; nothing was made
pushed     version, url, invalid, hash, lineage, resend, found    the target has this version (`found`: seen afterwards)
status     word                                        the target's word for the version changed
ended      word, failure                               the session is over
pulled     folder                                      its outputs lie here
paused     the fields of `Checkpoint`                  it stopped before the end; its checkpoint is sound
unmounted  version, kind, reason                       the checkpoint that it was to go on from was not there
uploading  ref                                         a data set of the checkpoint is about to be made
uploaded   ref                                         the target took it
verified   the fields of `Result`                      the adapter counts
failed     hash, version, error, reason, hint, gates   the phase failed, or missed a gate of these
adopted    the fields of `Result`                      an adapter trained elsewhere is this phase's result

`intent` and `pushed` of a phase that may take several sessions carry base, max_sessions and continues, as in `Version`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from kchain.errors import GateMissed
from kchain.kernel_metadata import Continuation
from kchain.orchestrator.state import (
    Checkpoint,
    Entry,
    Failure,
    Intent,
    PhaseState,
    Result,
    Upload,
    Version,
    lineage,
)


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


def _reviewed(state: PhaseState, entry: Entry) -> PhaseState:
    bundle_hash = str(entry.detail["hash"])
    failure, version = state.failure, state.version
    if failure is not None and version is not None and failure.hash == bundle_hash:
        # A second look after a failure sends a run on that has somewhere to go on from.
        left = state.checkpoint is not None and state.checkpoint.session < version.max_sessions
        failure = replace(failure, again=left)
    return replace(state, reviewed=state.reviewed | {bundle_hash}, failure=failure)


def _intent(state: PhaseState, entry: Entry) -> PhaseState:
    detail = entry.detail
    intent = Intent(
        detail["hash"], detail["before"], lineage(detail["lineage"]), detail["resend"], entry.time, **_run(detail)
    )
    return replace(state, intent=intent, refused="")


def _looked(state: PhaseState, entry: Entry) -> PhaseState:
    if state.intent is not None:
        return replace(state, intent=replace(state.intent, looked=entry.time))
    if state.upload is not None:
        return replace(state, upload=replace(state.upload, looked=entry.time))
    return state


def _released(state: PhaseState, entry: Entry) -> PhaseState:
    return replace(state, intent=None)


def _refused(state: PhaseState, entry: Entry) -> PhaseState:
    return replace(state, intent=None, upload=None, refused=str(entry.detail["reason"]))


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
        **_run(detail),
    )
    if version.continues is None:
        # Another run begins: what an earlier one had reached no longer counts.
        state = replace(state, checkpoint=None, upload=None)
    # A new version takes the place of the old one's output: the old result can no longer be mounted.
    return replace(state, intent=None, version=version, failure=None, result=None, refused="")


def _run(detail: Mapping[str, Any]) -> dict[str, Any]:
    """What a push tells about its run; a journal from before there were several sessions does not."""
    continues = detail.get("continues")
    return {
        "base": str(detail.get("base", "")),
        "max_sessions": int(detail.get("max_sessions", 1)),
        "continues": Continuation(**continues) if continues else None,
    }


def _status(state: PhaseState, entry: Entry) -> PhaseState:
    return _on_version(state, word=str(entry.detail["word"]))


def _ended(state: PhaseState, entry: Entry) -> PhaseState:
    detail = entry.detail
    return _on_version(state, word=str(detail["word"]), failure=str(detail["failure"]), ended=True)


def _pulled(state: PhaseState, entry: Entry) -> PhaseState:
    return _on_version(state, folder=str(entry.detail["folder"]))


def _on_version(state: PhaseState, **changes: Any) -> PhaseState:
    return state if state.version is None else replace(state, version=replace(state.version, **changes))


def _paused(state: PhaseState, entry: Entry) -> PhaseState:
    told = dict(entry.detail) | {"lineage": lineage(entry.detail["lineage"])}
    return replace(state, checkpoint=Checkpoint(**told), upload=None)


def _unmounted(state: PhaseState, entry: Entry) -> PhaseState:
    return replace(_on_version(state, lost=True), unmounted=state.unmounted or entry.detail["kind"] == "kernel")


def _uploading(state: PhaseState, entry: Entry) -> PhaseState:
    return replace(state, upload=Upload(str(entry.detail["ref"]), entry.time), refused="")


def _uploaded(state: PhaseState, entry: Entry) -> PhaseState:
    return replace(state, upload=Upload(str(entry.detail["ref"]), entry.time, answered=True))


def _failed(state: PhaseState, entry: Entry) -> PhaseState:
    detail = entry.detail
    told = {key: detail[key] for key in ("hash", "version", "error", "reason", "hint", "gates")}
    failure = Failure(**told, time=entry.time)
    # A training that ran to its end and missed a gate has nothing to go on from.
    ended = failure.error == GateMissed.__name__ and not (
        state.checkpoint is not None and state.checkpoint.version == failure.version
    )
    return replace(state, failure=failure, result=None, checkpoint=None if ended else state.checkpoint)


def _verified(state: PhaseState, entry: Entry) -> PhaseState:
    return replace(state, failure=None, result=_result(entry, adopted=False), checkpoint=None, upload=None)


def _adopted(state: PhaseState, entry: Entry) -> PhaseState:
    # What was pushed before no longer matters: the result is another one.
    result = _result(entry, adopted=True)
    return PhaseState(state.reviewed, result=result, refused=state.refused, unmounted=state.unmounted)


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
        found=str(detail.get("found", "")),
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
    "paused": _paused,
    "unmounted": _unmounted,
    "uploading": _uploading,
    "uploaded": _uploaded,
    "verified": _verified,
    "failed": _failed,
    "adopted": _adopted,
}
