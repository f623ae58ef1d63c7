"""`kchain inbox`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.markup import escape

from kchain.cli.common import console, load_project, print_json, progress_console, target_option

if TYPE_CHECKING:
    from kchain.inbox.loop import Handled


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--phase", required=True, metavar="PHASE", help="The phase to train on each file.")
@target_option
@click.option("--once", is_flag=True, help="Process what is there now, then return: for cron.")
@click.option(
    "--settle",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="A file unchanged for this long is complete; raise it on a slow network.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per finished file.")
def inbox(folder: Path, phase: str, target: str | None, once: bool, settle: float, as_json: bool) -> None:
    """Train PHASE on every JSONL file that is dropped into DIR/inbox/, oldest first, each as a run of its own.

    The adapter goes to DIR/adapters/<name>-<hash>/, the file to DIR/archive/, or with a reason to DIR/rejected/. PHASE
    must be reviewed, and is not changed itself.

    Runs until Ctrl-C. It can be killed at any moment and started again: nothing is lost or trained twice. All rules:
    docs/inbox.md.

    \b
    Exit codes: 0 done (--once) · 1 a file was rejected (--once), or three runs in a row failed · 2 bad input ·
    3 not now · 4 target unreachable · 130 Ctrl-C
    """
    chain = load_project()
    chain.trained_phase(phase)
    from kchain.cli.progress import Terminal
    from kchain.inbox.box import Box
    from kchain.inbox.loop import Inbox

    tell = _tell_json if as_json else _tell
    with Terminal(progress_console(as_json)) as terminal:
        rejected = Inbox(Box(folder), chain.root, phase, target, terminal, tell, settle).run(once=once)
    if rejected:
        raise click.exceptions.Exit(1)


def _tell(done: Handled) -> None:
    if done.outcome == "rejected":
        words = (
            f"[bold red]rejected[/]: {escape(done.wrong)}\n  why, and what to do: {_shown(done.moved_to)}.reason.txt"
        )
    else:
        words = f"[bold green]{done.outcome}[/], version {done.version}\n  adapter: {_shown(done.adapter)}"
        words += f"\n  archived: {_shown(done.moved_to)}"
    console.print(f"[bold]{escape(done.file)}[/]  {words}", soft_wrap=True)


def _tell_json(done: Handled) -> None:
    line = {
        "file": done.file,
        "sha256": done.sha256,
        "outcome": done.outcome,
        "moved_to": str(done.moved_to),
        "adapter": str(done.adapter) if done.adapter is not None else None,
        "version": done.version,
        "reason": done.wrong,
    }
    print_json(line, indent=None)


def _shown(path: Path | None) -> str:
    return escape(os.path.relpath(path)) if path is not None else ""
