"""What was learned and what was forgotten, as a table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from kchain.cli.tables import NOTHING, new_table, print_table
from kchain.orchestrator.judged import Judged, columns, judged, read_results
from kchain.orchestrator.state import PhaseState

if TYPE_CHECKING:
    from kchain.phases import Chain

# A rise of the loss, in nats, from which it is shown as one: below it is rounding.
_RISE = 0.005
TITLE = "Validation loss before -> after each phase, on its own split and on those of earlier phases:"


def print_judged(console: Console, chain: Chain, states: Mapping[str, PhaseState]) -> None:
    """A row for each phase, a column for each validation split; nothing where nothing was judged."""
    results, names = read_results(chain, states), [phase.name for phase in chain.trained]
    splits = columns(results, names)
    if not splits:
        return
    console.print(f"\n{TITLE}", soft_wrap=True)
    ended = any(_metrics(result).get("eos_rate") is not None for result in results.values())
    apart = any(_metrics(result).get("style_separation") is not None for result in results.values())
    extra = [*([">answers that end"] if ended else []), *([">style separation"] if apart else [])]
    shown = new_table("phase", *(f">on {split}" for split in splits), *extra)
    for name in names:
        if name in results:
            found = {one.split: one for one in judged(results[name])}
            metrics = _metrics(results[name])
            cells = [_cell(found.get(split), split == name) for split in splits]
            rates = [_rates(metrics)] if ended else []
            shown.add_row(name, *cells, *rates, *([_number(metrics.get("style_separation"))] if apart else []))
    print_table(console, shown)


def _cell(one: Judged | None, own: bool) -> str:
    """`11.717 -> 0.980`; where the loss of an earlier phase rose, in the colour of what is lost."""
    if one is None:
        return NOTHING
    if one.before is None or one.rise is None:
        return f"{one.after.loss:.3f}"
    words = f"{one.before.loss:.3f} -> {one.after.loss:.3f}"
    if own or abs(one.rise) < _RISE:
        return words
    return f"[yellow]{words}[/]" if one.rise > 0 else f"[green]{words}[/]"


def _metrics(result: Mapping[str, Any]) -> Mapping[str, Any]:
    metrics = result.get("metrics")
    return metrics if isinstance(metrics, Mapping) else {}


def _rates(metrics: Mapping[str, Any]) -> str:
    before, after = metrics.get("eos_rate_before"), metrics.get("eos_rate")
    if not isinstance(before, int | float) or not isinstance(after, int | float):
        return NOTHING
    return f"{before:.0%} -> {after:.0%}"


def _number(value: object) -> str:
    return f"{value:.1f}x" if isinstance(value, int | float) else NOTHING
