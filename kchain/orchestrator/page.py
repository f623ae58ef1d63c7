"""The page of a chain: its lineage, what each phase learned and forgot, its gates, its data, its answers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kchain import __version__
from kchain.orchestrator.gates import reasons
from kchain.orchestrator.judge import gate_results
from kchain.orchestrator.judged import Judged, columns, judged, read_results
from kchain.orchestrator.report import FINISHED, Row, table
from kchain.orchestrator.state import PhaseState
from kchain.pages import render, write
from kchain.phases import Chain
from kchain.units import duration, size

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
