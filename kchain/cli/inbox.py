"""`kchain inbox`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape

from kchain.cli.common import console, load_project, target_option

if TYPE_CHECKING:
    from kchain.inbox.run import Settled


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--phase", required=True, metavar="PHASE", help="The phase that every file becomes a run of.")
@target_option
@click.option("--once", is_flag=True, help="Do what lies there now, then return: for cron.")
@click.option(
    "--settle",
    type=click.FloatRange(0.1, 3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="Rest after which a file counts as whole; longer for a slow network.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON for every file that is done with.")
def inbox(folder: Path, phase: str, target: str | None, once: bool, settle: float, as_json: bool) -> None:
    """Train what is dropped into DIR/inbox/: every JSONL file becomes a run of PHASE on that file.

    A file is checked as by kchain data check, trained with the settings, parents, machine and gates of PHASE, which
    must be reviewed, and its adapter lands in DIR/adapters/<name>-<hash>/. The file moves to DIR/archive/, or with the
    reason beside it to DIR/rejected/. PHASE itself, its kernel and its result stay as they are: each file has a kernel
    of its own. Files come one after the other, the oldest first. The same content is trained once; it is trained again
    when the phase file or an adapter below it has changed, or when it failed.

    Columns are mapped as in the first source of PHASE that the file has the columns of, else by usual names: messages,
    prompt and completion, text.

    A file is taken when it has not changed for some seconds (--settle) and its last line is whole. An unfinished or
    empty one waits ten minutes, and is rejected then. Names with a dot in front, links, folders and other files are
    left alone. Writers that append line by line: write elsewhere, and move the file in.

    It runs until Ctrl-C. It can be killed at any moment and started again: nothing is lost or trained twice. What is
    not possible now (no network, quota, another kchain on this chain) is tried again; the file stays meanwhile.

    \b
    Exit codes: 0 done (--once) · 1 a file was rejected (--once), or three runs in a row failed · 2 bad input ·
    3 not now · 4 target unreachable · 130 Ctrl-C
    """
    chain = load_project()
    chain.trained_phase(phase)
    from kchain.cli.progress import Terminal
    from kchain.inbox.box import Box
    from kchain.inbox.run import Inbox

    tell = _tell_json if as_json else _tell
    with Terminal(Console(stderr=True, highlight=False) if as_json else console) as terminal:
        rejected = Inbox(Box(folder), chain.root, phase, target, terminal, tell, settle).run(once=once)
    if rejected:
        raise click.exceptions.Exit(1)


def _tell(done: Settled) -> None:
    if done.outcome == "rejected":
        words = (
            f"[bold red]rejected[/]: {escape(done.wrong)}\n  why, and what to do: {_shown(done.moved_to)}.reason.txt"
        )
    else:
        words = f"[bold green]{done.outcome}[/], version {done.version}\n  adapter: {_shown(done.adapter)}"
        words += f"\n  archived: {_shown(done.moved_to)}"
    console.print(f"[bold]{escape(done.file)}[/]  {words}", soft_wrap=True)


def _tell_json(done: Settled) -> None:
    line = {
        "file": done.file,
        "sha256": done.sha256,
        "outcome": done.outcome,
        "moved_to": str(done.moved_to),
        "adapter": str(done.adapter) if done.adapter is not None else None,
        "version": done.version,
        "reason": done.wrong,
    }
    click.echo(json.dumps(line))


def _shown(path: Path | None) -> str:
    return escape(os.path.relpath(path)) if path is not None else ""
