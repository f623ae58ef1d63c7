"""The tables of a chain: where it stands, and what came out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from kchain.cli.common import as_typed
from kchain.cli.progress import duration
from kchain.orchestrator.report import Row, table
from kchain.orchestrator.state import PhaseState
from kchain.units import size

if TYPE_CHECKING:
    from kchain.phases import Chain
    from kchain.rehearse.run import Outcome

_COLOURS = {"done": "green", "adopted": "green", "failed": "red", "stale": "yellow"}
NOTHING = "-"
# Columns that the widest table of a chain needs.
_WIDTH = 150


def print_status(console: Console, rows: list[Row]) -> None:
    """Where every phase stands, and what to do next."""
    several = ["sessions"] if any(row.progress for row in rows) else []
    shown = new_table("phase", "state", *several, ">version", ">loss", ">accuracy", ">adapter", "hash", "when", "next")
    for row in rows:
        shown.add_row(
            row.phase,
            _state(row),
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
    """What a finished chain came to, and what moving whole models would have cost."""
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
            NOTHING if row.seconds is None else duration(row.seconds),
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


def print_rehearsed(console: Console, outcomes: Sequence[Outcome]) -> None:
    """What a rehearsal came to, phase by phase."""
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
            NOTHING if result is None or result.seconds is None else duration(result.seconds),
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


def new_table(*columns: str) -> Table:
    """A plain table; a column whose name starts with `>` is set to the right."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return shown


def print_table(console: Console, shown: Table) -> None:
    """Whole lines, also where the terminal is narrow: it may wrap them, a cut figure helps nobody."""
    wide = Console(
        file=console.file, width=max(console.width, _WIDTH), force_terminal=console.is_terminal, highlight=False
    )
    wide.print(shown)


def _state(row: Row) -> str:
    colour = _COLOURS.get(row.state)
    return f"[{colour}]{row.state}[/]" if colour else row.state


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
