"""Where a chain stands: a table with a row a phase, and a page with all that its result files tell."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain import __version__
from kchain.errors import AdapterRefused
from kchain.orchestrator.journal.state import PhaseState, goes_on, is_stale
from kchain.orchestrator.judging.judge import gate_results
from kchain.orchestrator.judging.result import JudgedSplit, ResultFile, StyleFigures, read_result
from kchain.pages import render, write
from kchain.phases import Chain
from kchain.runtime.contract import RESULT
from kchain.runtime.data import COUNTS
from kchain.runtime.files import hash_file
from kchain.units import duration, size

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
    base = result.moved.get("base_bytes") if result is not None else None
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
        whole=None if base is None or not trains else int(base) * (1 if chain.phase(phase).after is None else 2),
        when=state.time,
        next=_next(chain, states, phase, word),
        kind=chain.phase(phase).kind,
        found=result.found if result is not None and word in FINISHED else "",
    )


def _next(chain: Chain, states: Mapping[str, PhaseState], phase: str, word: str) -> str:
    state = states.get(phase, PhaseState())
    if word in FINISHED:
        return ""
    if word == "failed":
        again = state.failure is not None and state.failure.again
        return "kchain watch" if again else f"kchain logs {phase}; change what is wrong; kchain review {phase}"
    if word not in ("new", "reviewed", "stale"):
        return "kchain watch"
    unfinished = [each.name for each in chain.lineage(phase) if state_word(chain, states, each.name) not in FINISHED]
    if unfinished:
        return f"waits for {unfinished[-1]}"
    if state.refused:
        return f"kchain watch  (refused: {state.refused})"
    return f"kchain review {phase}" if word == "new" else "kchain watch"


def is_finished(chain: Chain, states: Mapping[str, PhaseState]) -> bool:
    """Whether every phase has a result that counts."""
    return all(state_word(chain, states, phase.name) in FINISHED for phase in chain.phases)


def read_results(chain: Chain, states: Mapping[str, PhaseState]) -> dict[str, ResultFile]:
    """The result file of every phase whose outputs are here, also of one that missed its gates.

    A file that makes no sense, or is not that of the result or the version that the journal knows, is left out.
    """
    found = {}
    for phase in chain.phases:
        state = states.get(phase.name, PhaseState())
        try:
            result = _known_result(chain.root, state, trained=phase.use is None)
        except AdapterRefused:
            continue
        if result is not None:
            found[phase.name] = result
    return found


def _known_result(root: Path, state: PhaseState, *, trained: bool) -> ResultFile | None:
    if state.result is not None and trained:
        read = read_result((root / state.result.folder).parent)
        known = read is not None and read.adapter is not None and read.adapter.sha256 == state.result.sha256
        return read if known else None
    if state.result is not None:
        file = root / state.result.folder / RESULT
        return read_result(file.parent) if file.is_file() and hash_file(file) == state.result.sha256 else None
    version = state.version
    if state.failure is None or version is None or not version.folder:
        return None
    read = read_result(root / version.folder)
    return read if read is not None and read.bundle == version.hash else None


def columns(results: Mapping[str, ResultFile], names: Sequence[str]) -> list[str]:
    """The splits that were judged anywhere, in the order of the chain's phases."""
    seen = {one.phase for result in results.values() for one in result.evaluation.splits}
    return [name for name in names if name in seen]


# The page: lineage, what each phase learned and forgot, its gates, its data, its answers.

# A change of the loss by this share of it has the full colour.
_FULL = 0.5
# Colours of states.
_MOODS = {"done": "good", "adopted": "good", "failed": "bad", "stale": "warn"}


def write_page(path: Path, chain: Chain, target: str, states: Mapping[str, PhaseState]) -> None:
    """Write the page of a chain on a target.

    Raises:
        InputError: it cannot be written there.
    """
    results, shown = read_results(chain, states), table(chain, states)
    splits = columns(results, [phase.name for phase in chain.trained])
    sections = [_section(chain, row, states.get(row.phase, PhaseState()), results.get(row.phase)) for row in shown]
    for before, section in zip([None, *sections], sections, strict=False):
        section["follows"] = section["phase"].after == (before["row"].phase if before is not None else None)
    values = {
        "chain": chain,
        "target": target,
        "sections": sections,
        "splits": splits,
        "matrix": [_line(one["row"].phase, one["judged"], splits) for one in sections if one["judged"]],
        "done": sum(row.state in FINISHED for row in shown),
        "made": time.strftime("%Y-%m-%d %H:%M"),
        "version": __version__,
    }
    write(path, render("orchestrator", "page.html.jinja", **values))


def _section(chain: Chain, row: Row, state: PhaseState, result: ResultFile | None) -> dict[str, Any]:
    """What the page says of one phase."""
    told, recorded, continued = result or ResultFile(), state.result, chain.continued(row.phase)
    return {
        "row": row,
        "phase": chain.phase(row.phase),
        # What the target said of itself: only an address of the web becomes a link.
        "url": row.url if row.url.startswith(("https://", "http://")) else "",
        "mood": _MOODS.get(row.state, "soft"),
        "built_on": [parent.name for parent in chain.merged(row.phase)],
        "continues": continued.name if continued is not None else None,
        "lineage": (recorded.lineage or ()) if recorded is not None else (),
        "size": size(row.adapter_bytes) if row.adapter_bytes is not None else None,
        "time": duration(row.seconds / 3600) if row.seconds is not None else None,
        "failure": state.failure,
        "gates": gate_results(chain, row.phase, result) if result is not None else [],
        "metrics": told.metrics,
        "judged": told.evaluation.splits,
        "not_judged": told.evaluation.not_judged,
        "absent": told.evaluation.absent,
        "samples": told.evaluation.samples,
        "styles": _styles(told.evaluation.styles.by_style),
        "examples": told.examples,
        "counts": COUNTS,
        "faults": {name.replace("_", " "): one for name, one in told.quality.faults.items() if one.count},
        "versions": told.versions,
    }


def _line(phase: str, found: Sequence[JudgedSplit], splits: Sequence[str]) -> dict[str, Any]:
    """A row of the matrix: a cell for each split, None where this phase was not asked about it."""
    by_split = {one.phase: one for one in found}
    return {"phase": phase, "cells": [_cell(by_split.get(split), split == phase) for split in splits]}


def _cell(one: JudgedSplit | None, own: bool) -> dict[str, Any] | None:
    if one is None:
        return None
    share = one.rise / one.before.loss if one.before is not None and one.rise is not None and one.before.loss else 0.0
    strength = round(100 * min(1.0, abs(share) / _FULL))
    return {"judged": one, "own": own, "better": share <= 0, "strength": max(6, strength) if share else 0}


def _styles(by_style: Mapping[str, StyleFigures]) -> list[dict[str, Any]]:
    """Styles with their mean tokens, and the width of a bar in percent."""
    most = max((one.tokens for one in by_style.values()), default=0) or 1
    return [
        {"name": name, "tokens": one.tokens, "ended": one.ended, "width": round(100 * one.tokens / most, 1)}
        for name, one in by_style.items()
    ]
