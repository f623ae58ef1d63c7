"""`kchain review`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click
from rich.text import Text

from kchain.cli.common import console, load_project, target_option
from kchain.cli.plan import plan_table

if TYPE_CHECKING:
    from kchain.orchestrator.review import Review

_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@click.command()
@click.argument("phase", required=False)
@target_option
def review(phase: str | None, target: str | None) -> None:
    """Show what would be pushed, and remember that you saw it.

    Plan, metadata, what linting found, and what changed since the last push, cell by cell. Without PHASE, the whole
    chain. kchain push and kchain watch push only what was shown here.
    """
    chain = load_project()
    from kchain.orchestrator.review import record
    from kchain.orchestrator.review import review as look
    from kchain.orchestrator.target import Target

    place = Target(target or chain.target, chain.owner, chain.root)
    phases = [chain.phase(phase).name] if phase else [each.name for each in chain.phases]
    reviews = look(chain, place, phases)
    for shown in reviews:
        _print(shown)
    record(chain, place, reviews)
    names = ", ".join(shown.phase for shown in reviews)
    console.print(f"\nReviewed: {names}. Push with: kchain watch, or kchain push PHASE", soft_wrap=True)


def _print(shown: Review) -> None:
    console.rule(f"{shown.phase}: {shown.kernel}", align="left")
    table = plan_table(shown.plan)
    table.add_row("bundle", shown.hash + ("  (reviewed before)" if shown.known else ""))
    table.add_row("read it", Text(os.path.relpath(shown.folder / "notebook.ipynb")))
    console.print(table)
    console.print("\nmetadata", style="bold")
    console.print(json.dumps(shown.metadata, indent=2), markup=False, soft_wrap=True)
    if shown.findings:
        console.print("\nlint", style="bold")
    for finding in shown.findings:
        console.print(f"{finding.severity} [{finding.rule}] {finding.where}: {finding.message}", markup=False)
        console.print(f"  why: {finding.reason}\n  cure: {finding.cure}", markup=False)
    since = "the whole notebook (nothing was pushed yet)" if shown.pushed is None else f"since version {shown.pushed}"
    console.print(f"\nchanges: {since}", style="bold", markup=False)
    for line in shown.changes:
        console.print(Text(line, style=_COLOURS.get(line[:1], "")), soft_wrap=True)
    if not shown.changes:
        console.print("none")
