"""`kchain doctor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from kchain.cli.common import as_typed, console, in_project, json_option, load_project, print_json, target_option

if TYPE_CHECKING:
    from kchain.orchestrator.doctor import Check

_STYLES = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command()
@target_option
@json_option
@click.pass_context
def doctor(context: click.Context, target: str | None, as_json: bool) -> None:
    """Check everything that kchain needs: client, credentials, owner, clock, disk, target, GPU hours left.

    Nothing is changed; for target local the server is started, as by every command.

    Exit codes: 0 nothing failed (warnings do not count), else the worst of: 2 something to fix here, 3 no hours left,
    4 target unreachable.
    """
    from kchain.orchestrator.doctor import examine, worst

    # Outside of a project there is still much to check; one with problems is an error, as in every command.
    chain = load_project() if in_project() else None
    checks = examine(chain, target or (chain.target if chain else "kaggle"), chain.root if chain else Path.cwd())
    if as_json:
        print_json({"checks": [asdict(check) for check in checks], "exit_code": worst(checks)})
    else:
        console.print(_table(checks))
    context.exit(worst(checks))


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        state = Text(check.state, style=_STYLES[check.state])
        table.add_row(Text(check.name), state, Text(check.found))
        if check.cure:
            table.add_row("", "", Text(f"try: {as_typed(check.cure)}", style="dim"))
    return table
