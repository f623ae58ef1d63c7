"""What commands show of a chain: where it stands, and what came out of its phases."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from kchain.cli.common import as_typed, new_table, print_table
from kchain.orchestrator.journal.state import PhaseState
from kchain.orchestrator.judging.result import JudgedSplit, Metrics
from kchain.orchestrator.status import Row, columns, read_results, table
from kchain.units import duration, size

if TYPE_CHECKING:
    from kchain.phases import Chain
    from kchain.rehearse.run import Rehearsed

_COLOURS = {"done": "green", "adopted": "green", "failed": "red", "stale": "yellow"}
NOTHING = "-"
# A rise of the loss, in nats, from which it is shown as one: below it is rounding.
_RISE = 0.005
TITLE = "Validation loss before -> after each phase, on its own split and on those of earlier phases:"


def print_status(console: Console, rows: list[Row]) -> None:
    """Where every phase stands, and what to do next."""
    several = ["sessions"] if any(row.progress for row in rows) else []
    shown = new_table("phase", "state", *several, ">version", ">loss", ">accuracy", ">adapter", "hash", "when", "next")
    for row in rows:
        shown.add_row(
            row.phase,
            f"[{colour}]{row.state}[/]" if (colour := _COLOURS.get(row.state)) else row.state,
            *([row.progress or NOTHING] if several else []),
            _text(row.version),
            _number(row.loss_last, "{:.3f}"),
            _number(row.token_accuracy, "{:.1%}"),
            _bytes(row.adapter_bytes),
            (row.sha256 or NOTHING)[:10],
            NOTHING if row.when is None else time.strftime("%m-%d %H:%M", time.localtime(row.when)),
            as_typed(row.next),
        )
    print_table(console, shown)
    _print_found(console, rows)


def print_finished(console: Console, chain: Chain, states: Mapping[str, PhaseState]) -> None:
    """The results of a finished chain, and what moving whole models would have cost."""
    rows = table(chain, states)
    shown = new_table(
        "phase", ">version", ">steps", "loss", ">accuracy", ">pad id", ">adapter", "hash", ">time", ">moved"
    )
    for row in rows:
        shown.add_row(
            row.phase,
            _text(row.version),
            _text(row.steps),
            _loss(row.loss_first, row.loss_last),
            _number(row.token_accuracy, "{:.1%}"),
            _text(row.pad_id),
            _bytes(row.adapter_bytes),
            (row.sha256 or NOTHING)[:10],
            NOTHING if row.seconds is None else duration(row.seconds / 3600),
            _bytes(row.moved),
        )
    print_table(console, shown)
    _print_found(console, rows)
    if saved := savings(rows):
        console.print(saved, soft_wrap=True)


def _print_found(console: Console, rows: Sequence[Row]) -> None:
    """What the phases found that train nothing."""
    for row in rows:
        if row.found:
            console.print(f"{row.phase}: {row.found}", markup=False, soft_wrap=True)


def print_rehearsed(console: Console, outcomes: Sequence[Rehearsed]) -> None:
    """The results of a rehearsal, phase by phase."""
    shown = new_table("phase", "state", ">steps", "loss", ">time", ">adapter", "code")
    for outcome in outcomes:
        result = outcome.result
        metrics = result.metrics if result is not None else {}
        word = "failed" if outcome.failure is not None else "rehearsed" if outcome.fresh else "unchanged"
        shown.add_row(
            outcome.phase,
            f"[{'red' if word == 'failed' else 'green'}]{word}[/]",
            _text(metrics.get("steps")),
            _loss(metrics.get("loss_first"), metrics.get("loss_last")),
            NOTHING if result is None or result.seconds is None else duration(result.seconds / 3600),
            _bytes(result.bytes if result is not None and not result.found else None),
            outcome.code_hash[:10],
        )
    print_table(console, shown)


def savings(rows: list[Row]) -> str:
    """One sentence on the bytes that did not travel; empty where the base's size is not known."""
    counted = [row for row in rows if row.whole is not None]
    moved, whole = sum(row.moved or 0 for row in counted), sum(row.whole or 0 for row in counted)
    if whole <= 0:
        return ""
    # Rounded down: something always travels.
    share = f" ({math.floor(1000 * (1 - moved / whole)) / 10:g} % saved)" if moved < whole else ""
    return f"{_bytes(moved)} moved; whole models would have been {_bytes(whole)}{share}."


def print_judged(console: Console, chain: Chain, states: Mapping[str, PhaseState]) -> None:
    """What was learned and what was forgotten: a row for each phase, a column for each validation split."""
    results, names = read_results(chain, states), [phase.name for phase in chain.trained]
    splits = columns(results, names)
    if not splits:
        return
    console.print(f"\n{TITLE}", soft_wrap=True)
    ended = any(result.metrics.eos_rate is not None for result in results.values())
    apart = any(result.metrics.style_separation is not None for result in results.values())
    extra = [*([">answers that end"] if ended else []), *([">style separation"] if apart else [])]
    shown = new_table("phase", *(f">on {split}" for split in splits), *extra)
    for name in names:
        if name in results:
            found = {one.phase: one for one in results[name].evaluation.splits}
            metrics = results[name].metrics
            cells = [_cell(found.get(split), split == name) for split in splits]
            rates = [_rates(metrics)] if ended else []
            shown.add_row(name, *cells, *rates, *([_number(metrics.style_separation, "{:.1f}x")] if apart else []))
    print_table(console, shown)


def _cell(one: JudgedSplit | None, own: bool) -> str:
    """`11.717 -> 0.980`; where the loss of an earlier phase rose, in the colour of what is lost."""
    if one is None:
        return NOTHING
    if one.before is None or one.rise is None:
        return f"{one.after.loss:.3f}"
    words = f"{one.before.loss:.3f} -> {one.after.loss:.3f}"
    if own or abs(one.rise) < _RISE:
        return words
    return f"[yellow]{words}[/]" if one.rise > 0 else f"[green]{words}[/]"


def _rates(metrics: Metrics) -> str:
    if metrics.eos_rate_before is None or metrics.eos_rate is None:
        return NOTHING
    return f"{metrics.eos_rate_before:.0%} -> {metrics.eos_rate:.0%}"


def _loss(first: float | None, last: float | None) -> str:
    if first is None and last is None:
        return NOTHING
    return f"{_number(first, '{:.3f}')} -> {_number(last, '{:.3f}')}"


def _text(value: object) -> str:
    return NOTHING if value is None else str(value)


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else form.format(value)


def _bytes(count: int | None) -> str:
    return NOTHING if count is None else size(count)
