"""`kchain push`."""

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
