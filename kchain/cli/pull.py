"""`kchain pull`."""

from __future__ import annotations

import click

from kchain.cli.common import console, load_project, target_option


@click.command()
@click.argument("phase")
@click.option("--all", "everything", is_flag=True, help="Also the models of an export, checked by hash.")
@target_option
def pull(phase: str, everything: bool, target: str | None) -> None:
    """Download the outputs of a phase's last version again, into runs/TARGET/PHASE/vN.

    The models of an export stay on the target without --all. Nothing is verified: kchain watch does that.
    """
    chain = load_project()
    from kchain.client.target import Target
    from kchain.orchestrator.logs import fetch_outputs

    place = Target(target or chain.target, chain.owner, chain.root)
    folder = fetch_outputs(chain, phase, place, everything=everything)
    console.print(f"fetched into {folder.relative_to(chain.root)}", markup=False, soft_wrap=True)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            console.print(f"{path.stat().st_size:>14,}  {path.relative_to(folder)}", markup=False, soft_wrap=True)
