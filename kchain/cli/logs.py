"""`kchain logs` and `kchain pull`: what a session printed, and what it left."""

from __future__ import annotations

import click

from kchain.cli.common import load_project, say, target_of, target_option


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


@click.command()
@click.argument("phase")
@click.option("--all", "everything", is_flag=True, help="Also the models of an export, checked by hash.")
@target_option
def pull(phase: str, everything: bool, target: str | None) -> None:
    """Download the outputs of a phase's last version again, into runs/TARGET/PHASE/vN.

    The models of an export stay on the target without --all. Nothing is verified: kchain watch does that.
    """
    chain = load_project()
    from kchain.orchestrator.logs import fetch_outputs

    folder = fetch_outputs(chain, phase, target_of(chain, target), everything=everything)
    say(f"fetched into {folder.relative_to(chain.root)}")
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            say(f"{path.stat().st_size:>14,}  {path.relative_to(folder)}")
