"""`kchain pull`."""

from __future__ import annotations

import click

from kchain.cli.common import load_project, say, target_of, target_option


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
