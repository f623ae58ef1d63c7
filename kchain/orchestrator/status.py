"""What a driver tells while it works, and the table of a chain: plain values that a terminal or a page can show."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kchain import __version__
from kchain.orchestrator.journal.state import PhaseState, goes_on, is_stale
from kchain.orchestrator.judging.gates import reasons
from kchain.orchestrator.judging.judge import gate_results
from kchain.pages import render, write
from kchain.phases import Chain
from kchain.runtime.contract import RESULT
from kchain.runtime.files import hash_file
from kchain.units import duration, size

if TYPE_CHECKING:
    from kchain.phases import Chain


# What each phase changed, by its own account: read from the result files of a chain as they lie on this machine.


@dataclass(frozen=True)
class Figures:
    """Loss (nats a token) and token accuracy (0 to 1) of one model on one split."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Judged:
    """One split, judged by the model before a phase and by the one after it; None where that was not judged."""

    split: str
    examples: int
    before: Figures | None
    after: Figures

    @property
    def rise(self) -> float | None:
        """By how much the loss rose; below 0: it fell."""
        return None if self.before is None else self.after.loss - self.before.loss


def read_results(chain: Chain, states: Mapping[str, PhaseState]) -> dict[str, Mapping[str, Any]]:
    """The result file of every phase whose outputs are here, also of one that missed its gates.

    A file that is not that of the result, or of the version, that the journal knows is left out.
    """
    found = {}
    for phase in chain.phases:
        state = states.get(phase.name, PhaseState())
        result = _result(chain.root, state, trained=phase.use is None)
        if result is not None:
            found[phase.name] = result
    return found


def judged(result: Mapping[str, Any]) -> list[Judged]:
    """The splits that a phase's session judged, its own last; entries that make no sense are left out."""
    evaluation = result.get("evaluation")
    splits = evaluation.get("splits") if isinstance(evaluation, Mapping) else None
    read = [_split(one) for one in splits] if isinstance(splits, list) else []
    return [one for one in read if one is not None]


def columns(results: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The splits that were judged anywhere, in the order of the chain's phases."""
    seen = {one.split for result in results.values() for one in judged(result)}
    return [name for name in names if name in seen]


def _result(root: Path, state: PhaseState, trained: bool) -> Mapping[str, Any] | None:
    if state.result is not None and trained:
        read = _read((root / state.result.folder).parent)
        return read if _of(read, "adapter").get("sha256") == state.result.sha256 else None
    if state.result is not None:
        file = root / state.result.folder / RESULT
        return _read(file.parent) if file.is_file() and hash_file(file) == state.result.sha256 else None
    version = state.version
    if state.failure is None or version is None or not version.folder:
        return None
    read = _read(root / version.folder)
    return read if read is not None and read.get("bundle") == version.hash else None


def _read(folder: Path) -> Mapping[str, Any] | None:
    try:
        read = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _of(value: Mapping[str, Any] | None, key: str) -> Mapping[str, Any]:
    inner = value.get(key) if value is not None else None
    return inner if isinstance(inner, Mapping) else {}


def _split(value: Any) -> Judged | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("phase"), str):
        return None
    after, examples = _figures(value.get("after")), value.get("examples")
    if after is None or not isinstance(examples, int):
        return None
    return Judged(value["phase"], examples, _figures(value.get("before")), after)


def _figures(value: Any) -> Figures | None:
    if not isinstance(value, Mapping):
        return None
    loss, accuracy = value.get("loss"), value.get("token_accuracy")
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in (loss, accuracy)):
        return None
    return Figures(float(value["loss"]), float(value["token_accuracy"]))


# Nothing is left to do for a phase in one of these states.
FINISHED = frozenset({"done", "adopted"})


@dataclass(frozen=True)
class Row:
    """One phase in the table of a chain; figures are None where there are none.

    Attributes:
        state: one word: new, reviewed, pushing, queued, running, ended, paused, done, adopted, failed, stale.
        session, max_sessions: which session of how many the last version is.
        step, of_steps: optimizer steps that its checkpoint holds, and those of the whole training.
        version: kernel version of the result, or of the last push.
        adapter_bytes, sha256, pad_id: of the verified adapter.
        seconds: run time of the sessions that made it.
        moved: bytes that travelled for it: what was downloaded.
        whole: bytes that moving whole models would have cost: the merged model down, and up again for every phase
            that builds on another one.
        when: seconds since the epoch of the last event.
        next: what to type or wait for next; empty when nothing is left.
        kind: what the phase does: "train", or how it uses what was trained; then `found` says what came of it.
    """

    phase: str
    title: str
    state: str
    session: int | None
    max_sessions: int | None
    step: int | None
    of_steps: int | None
    version: int | None
    url: str
    steps: int | None
    loss_first: float | None
    loss_last: float | None
    token_accuracy: float | None
    pad_id: int | None
    adapter_bytes: int | None
    sha256: str | None
    seconds: float | None
    moved: int | None
    whole: int | None
    when: float | None
    next: str
    kind: str = "train"
    found: str = ""

    @property
    def progress(self) -> str:
        """`session 2 of 3, step 600 of 4,700`; empty for a phase of one session that has no checkpoint."""
        if self.max_sessions is None or (self.session == 1 and self.step is None):
            return ""
        reached = "" if self.step is None else f", step {self.step:,} of {self.of_steps:,}"
        return f"session {self.session} of {self.max_sessions}{reached}"


def table(chain: Chain, states: Mapping[str, PhaseState]) -> list[Row]:
    """One row per phase, in the order of the chain."""
    return [_row(chain, states, phase.name) for phase in chain.phases]


def state_word(chain: Chain, states: Mapping[str, PhaseState], phase: str) -> str:
    """Where a phase stands, in a word."""
    state = states.get(phase, PhaseState())
    if state.intent is not None:
        return "pushing"
    if state.failure is not None:
        return "failed"
    if state.result is not None:
        return "stale" if is_stale(chain, states, phase) else "adopted" if state.result.adopted else "done"
    if goes_on(state):
        return "stale" if is_stale(chain, states, phase) else "paused"
    if state.version is not None:
        return "ended" if state.version.ended else (state.version.word or "pushed").lower()
    return "reviewed" if state.reviewed else "new"


def _row(chain: Chain, states: Mapping[str, PhaseState], phase: str) -> Row:
    state = states.get(phase, PhaseState())
    result, version, checkpoint = state.result, state.version, state.checkpoint
    metrics = result.metrics if result is not None else {}
    word, trains = state_word(chain, states, phase), chain.phase(phase).use is None
    return Row(
        phase=phase,
        title=chain.phase(phase).title,
        state=word,
        session=version.session if version is not None else None,
        max_sessions=version.max_sessions if version is not None else None,
        step=checkpoint.step if checkpoint is not None else None,
        of_steps=checkpoint.steps if checkpoint is not None else None,
        version=result.version if result is not None else version.number if version is not None else None,
        url=version.url if version is not None else "",
        steps=metrics.get("steps"),
        loss_first=metrics.get("loss_first"),
        loss_last=metrics.get("loss_last"),
        token_accuracy=metrics.get("token_accuracy"),
        pad_id=result.pad_id if result is not None else None,
        adapter_bytes=result.bytes if result is not None and trains else None,
        sha256=result.sha256 if result is not None and trains else None,
        seconds=result.seconds if result is not None else None,
        moved=result.moved.get("pulled_bytes") if result is not None else None,
        whole=_whole(chain, state, phase),
        when=state.time,
        next=_next(chain, states, phase, word),
        kind=chain.phase(phase).kind,
        found=result.found if result is not None and word in FINISHED else "",
    )


def _whole(chain: Chain, state: PhaseState, phase: str) -> int | None:
    base = state.result.moved.get("base_bytes") if state.result is not None else None
    if base is None or chain.phase(phase).use is not None:
        return None
    return int(base) * (1 if chain.phase(phase).after is None else 2)


def _next(chain: Chain, states: Mapping[str, PhaseState], phase: str, word: str) -> str:
    state = states.get(phase, PhaseState())
    if word in FINISHED:
        return ""
    if word == "failed":
        return "kchain watch" if _again(state) else f"kchain logs {phase}; change what is wrong; kchain review {phase}"
    if word not in ("new", "reviewed", "stale"):
        return "kchain watch"
    waits_for = [
        parent.name for parent in chain.lineage(phase) if state_word(chain, states, parent.name) not in FINISHED
    ]
    if waits_for:
        return f"waits for {waits_for[-1]}"
    return (
        f"kchain watch  (refused: {state.refused})"
        if state.refused
        else (f"kchain review {phase}" if word == "new" else "kchain watch")
    )


def _again(state: PhaseState) -> bool:
    return state.failure is not None and state.failure.again


def is_finished(chain: Chain, states: Mapping[str, PhaseState]) -> bool:
    """Whether every phase has a result that counts."""
    return all(state_word(chain, states, phase.name) in FINISHED for phase in chain.phases)


# The page of a chain: its lineage, what each phase learned and forgot, its gates, its data, its answers.

# A change of the loss by this share of it has the full colour.
_FULL = 0.5
# Colours of states.
_MOODS = {"done": "good", "adopted": "good", "failed": "bad", "stale": "warn"}
_COUNTS = ("read", "kept", "filtered", "broken", "duplicates", "capped")


def write_page(path: Path, chain: Chain, target: str, states: Mapping[str, PhaseState]) -> None:
    """Write the page of a chain on a target.

    Raises:
        InputError: it cannot be written there.
    """
    results = read_results(chain, states)
    sections = [_section(chain, row, states.get(row.phase, PhaseState()), results) for row in table(chain, states)]
    splits = columns(results, [phase.name for phase in chain.trained])
    for before, section in zip([None, *sections], sections, strict=False):
        section["follows"] = section["phase"].after == (before["row"].phase if before is not None else None)
    values = {
        "chain": chain,
        "target": target,
        "sections": sections,
        "splits": splits,
        "matrix": [_line(one["row"].phase, one["judged"], splits) for one in sections if one["judged"]],
        "done": sum(section["row"].state in FINISHED for section in sections),
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "version": __version__,
    }
    write(path, render("orchestrator", "page.html.jinja", **values))


def _section(chain: Chain, row: Row, state: PhaseState, results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the page says of one phase."""
    result, phase = results.get(row.phase, {}), chain.phase(row.phase)
    recorded = state.result
    evaluation, examples = _table(result, "evaluation"), _table(result, "examples")
    return {
        "row": row,
        "phase": phase,
        # What the target said of itself: only an address of the web becomes a link.
        "url": row.url if row.url.startswith(("https://", "http://")) else "",
        "mood": _MOODS.get(row.state, "soft"),
        "built_on": [parent.name for parent in chain.merged(row.phase)],
        "continues": continued.name if (continued := chain.continued(row.phase)) is not None else None,
        "lineage": [(each.phase, each.sha256) for each in (recorded.lineage or ())] if recorded is not None else [],
        "size": size(row.adapter_bytes) if row.adapter_bytes is not None else None,
        "time": duration(row.seconds / 3600) if row.seconds is not None else None,
        "failure": state.failure,
        "gates": gate_results(chain, row.phase, result) if result else [],
        "metrics": _table(result, "metrics"),
        "judged": judged(result),
        "not_judged": _rows(evaluation, "not_judged", ("phase", "reason")),
        "absent": reasons(result),
        "samples": _samples(evaluation),
        "styles": _styles(evaluation),
        "examples": {key: examples[key] for key in ("train", "validation") if isinstance(examples.get(key), int)},
        "sources": _rows(examples, "sources", ("name", *_COUNTS)),
        "counts": _COUNTS,
        "faults": _faults(_table(result, "quality")),
        "versions": {str(name): str(number) for name, number in _table(result, "versions").items()},
    }


def _line(phase: str, found: Sequence[Judged], splits: Sequence[str]) -> dict[str, Any]:
    """A row of the matrix: a cell for each split, None where this phase was not asked about it."""
    by_split = {one.split: one for one in found}
    return {"phase": phase, "cells": [_cell(by_split.get(split), split == phase) for split in splits]}


def _cell(one: Judged | None, own: bool) -> dict[str, Any] | None:
    if one is None:
        return None
    share = one.rise / one.before.loss if one.before is not None and one.rise is not None and one.before.loss else 0.0
    strength = round(100 * min(1.0, abs(share) / _FULL))
    return {"judged": one, "own": own, "better": share <= 0, "strength": max(6, strength) if share else 0}


def _table(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = value.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _rows(value: Mapping[str, Any], key: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """The tables in a list that have these names."""
    listed = value.get(key)
    tables = [one for one in listed if isinstance(one, Mapping)] if isinstance(listed, list) else []
    return [{name: one[name] for name in names} for one in tables if all(name in one for name in names)]


def _samples(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    samples = _rows(evaluation, "samples", ("prompt", "expected", "before", "after"))
    return [one for one in samples if all(_is_answer(one[side]) for side in ("before", "after"))]


def _is_answer(value: Any) -> bool:
    return isinstance(value, Mapping) and {"text", "tokens", "ended"} <= set(value)


def _styles(evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Styles with their mean tokens, and the width of a bar in percent."""
    by_style = _table(_table(evaluation, "styles"), "by_style")
    found = [{"name": str(name), **one} for name, one in by_style.items() if isinstance(one, Mapping)]
    found = [one for one in found if all(isinstance(one.get(key), int | float) for key in ("tokens", "ended"))]
    most = max((one["tokens"] for one in found), default=1)
    return [{**one, "width": round(100 * one["tokens"] / most, 1)} for one in found]


def _faults(quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Faults of the data that were found at all."""
    faults = _table(quality, "faults")
    found = [{"name": str(name).replace("_", " "), **one} for name, one in faults.items() if isinstance(one, Mapping)]
    return [one for one in found if one.get("count") and "share" in one]
