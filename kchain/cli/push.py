"""`kchain push`, `kchain watch` and `kchain run`: one reviewed phase, or the whole chain."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import click

from kchain.cli.common import console, load_project, say, target_of, target_option

if TYPE_CHECKING:
    from kchain.orchestrator.push import Preview


@click.command()
@click.argument("phase")
@target_option
@click.option("--yes", is_flag=True, help="Approve what renders now, without review.")
@click.option("--again", is_flag=True, help="Push even if nothing changed since the last version.")
@click.option("--no-wait", is_flag=True, help="Do not wait for a running version or a full session cap: exit 3.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")
def push(phase: str, target: str | None, yes: bool, again: bool, no_wait: bool, dry_run: bool) -> None:
    """Push one reviewed phase to its kernel.

    Sends exactly the reviewed bundle, once. Waits first until an earlier version has ended. A finished, unchanged phase
    is left alone.

    \b
    Exit codes: 0 pushed, or nothing to push · 1 the target refused it · 2 bad input · 3 not now · 4 target unreachable
    """
    chain = load_project()
    from kchain.cli.progress import Terminal
    from kchain.orchestrator import push as library

    place = target_of(chain, target)
    if dry_run:
        _show(library.preview(chain, phase, place, yes=yes, again=again))
        return
    with Terminal(console) as terminal:
        done = library.push(chain, phase, place, terminal, yes=yes, again=again, wait=not no_wait)
    if done.pushed:
        text = f"{phase} version {done.version} is on its way. Follow it: kchain watch"
    elif done.version is not None:
        text = f"nothing to push: version {done.version} of {phase} is this bundle (--again pushes it once more)"
    else:
        text = f"nothing to push: {phase} has an adopted result (--again trains it nevertheless)"
    say(text)


@click.command()
@target_option
@click.option("--yes", is_flag=True, help="Approve every unfinished phase as it renders now.")
@click.option("--once", is_flag=True, help="Do what is possible now, then return: for cron.")
def watch(target: str | None, yes: bool, once: bool) -> None:
    """Drive the chain from wherever it is until all phases are done.

    Follows the running version, pulls and verifies its adapter, checks the gates, pushes the next reviewed phase.
    It can be stopped or killed at any moment and started again.

    \b
    Exit codes: 0 done · 1 a phase failed or missed a gate · 2 bad input · 3 not now · 4 target unreachable · 130 Ctrl-C
    """
    _drive(target, yes, once)


@click.command()
@target_option
def run(target: str | None) -> None:
    """Run the whole chain, approving what renders now: `kchain watch --yes`."""
    _drive(target, yes=True, once=False)


def _drive(target: str | None, yes: bool, once: bool) -> None:
    chain = load_project()
    from kchain.cli.progress import Terminal
    from kchain.cli.show import print_finished, print_judged, print_status
    from kchain.orchestrator.journal.journal import Key, read_states
    from kchain.orchestrator.status import is_finished, table
    from kchain.orchestrator.watch import watch as drive

    place = target_of(chain, target)
    finished_before = is_finished(chain, read_states(chain.root, Key(place.name, chain.owner, chain.name)))
    with Terminal(console) as terminal:
        states = drive(chain, place, terminal, yes=yes, once=once)
    if not is_finished(chain, states):
        print_status(console, table(chain, states))
        return
    print_finished(console, chain, states)
    print_judged(console, chain, states)
    if finished_before:
        say("The chain is finished; nothing was pushed.")


def _show(preview: Preview) -> None:
    from kchain.units import duration

    say(f"kernel   {preview.kernel}")
    say(f"folder   {os.path.relpath(preview.folder)}")
    say(f"bundle   {preview.hash}")
    say(f"timeout  {duration(preview.session_timeout / 3600)}")
    say(json.dumps(preview.metadata, indent=2))
    if preview.command:
        say(f"by hand  {preview.command}")
    if preview.warning:
        say(f"warning  {preview.warning}")
    say(preview.verdict)
