"""`kchain logs`."""

from __future__ import annotations

import click

from kchain.cli.common import load_project, target_of, target_option


@click.command()
@click.argument("phase")
@target_option
@click.option("-f", "--follow", is_flag=True, help="Follow a running session until it ends.")
def logs(phase: str, target: str | None, follow: bool) -> None:
    """Show the log of a phase's last version.

    The log of a running session exists only as a live stream: use -f.
    """
    chain = load_project()
    from kchain.orchestrator.logs import read_log

    for line in read_log(chain, phase, target_of(chain, target), follow=follow):
        click.echo(line.text, err=line.stream == "stderr")
