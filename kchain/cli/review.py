"""`kchain review`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click
from rich.text import Text

from kchain.cli.common import as_typed, console, load_project, phase_names, say, target_of, target_option
from kchain.cli.plan import plan_table

if TYPE_CHECKING:
    from kchain.orchestrator.review import Review

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}
# A change of so few lines is printed again rather than referred to.
_SHORT = 8


@click.command()
@click.argument("phase", required=False)
@target_option
def review(phase: str | None, target: str | None) -> None:
    """Show what would be pushed for PHASE (default: every phase), and approve it.

    Prints plan, metadata, findings of the linter, and changes since the last push, cell by cell. kchain push and kchain
    watch push only what was shown here, for as many sessions as the plan says.
    """
    chain = load_project()
    from kchain.orchestrator.review import record
    from kchain.orchestrator.review import review as look

    place = target_of(chain, target)
    reviews = look(chain, place, phase_names(chain, phase))
    seen: dict[str, str] = {}
    for shown in reviews:
        _print(shown, seen)
    record(chain, place, reviews)
    names = ", ".join(shown.phase for shown in reviews)
    say(f"\nReviewed: {names}. Push with: kchain watch, or kchain push PHASE")


def _print(shown: Review, seen: dict[str, str]) -> None:
    console.rule(f"{shown.phase}: {shown.kernel}", align="left")
    table = plan_table(shown.plan)
    table.add_row("bundle", shown.hash + ("  (reviewed before)" if shown.known else ""))
    if shown.goes_on:
        table.add_row("goes on", shown.goes_on)
    rehearsed = as_typed(f"never (kchain rehearse {shown.phase})")
    if shown.rehearsed is not None:
        rehearsed = f"yes ({time.strftime('%Y-%m-%d %H:%M', time.localtime(shown.rehearsed))})"
    table.add_row("rehearsed", rehearsed)
    table.add_row("read it", Text(os.path.relpath(shown.folder / "notebook.ipynb")))
    console.print(table)
    console.print("\nmetadata", style="bold")
    say(json.dumps(shown.metadata, indent=2))
    if shown.findings:
        console.print("\nlint", style="bold")
    for finding in shown.findings:
        say(f"{finding.severity} [{finding.rule}] {finding.where}: {finding.message}")
        say(f"  why: {finding.reason}\n  cure: {finding.cure}")
    since = "the whole notebook (nothing was pushed yet)" if shown.pushed is None else f"since version {shown.pushed}"
    console.print(f"\nchanges: {since}", style="bold", markup=False)
    for line in _unseen(shown, seen):
        console.print(Text(line, style=_COLOURS.get(line[:1], "")), soft_wrap=True)
    if not shown.changes:
        console.print("none")


def _unseen(shown: Review, seen: dict[str, str]) -> Iterator[str]:
    """The changes, less what was printed word for word for an earlier phase: the runtime is the same in every notebook.

    Args:
        seen: text of a change -> heading under which it was printed; added to.
    """
    for heading, *lines in _by_cell(shown.changes):
        body = "\n".join(lines)
        if len(lines) > _SHORT and (earlier := seen.setdefault(body, heading)) != heading:
            yield f"{heading}, as {earlier.removeprefix('=== ').partition(':')[0]} above ({len(lines)} lines)"
        else:
            yield from (heading, *lines)


def _by_cell(changes: Sequence[str]) -> Iterator[list[str]]:
    """The lines of a diff, parted before each heading."""
    part: list[str] = []
    for line in changes:
        if line.startswith("=== ") and part:
            yield part
            part = []
        part.append(line)
    if part:
        yield part
