"""`kchain adopt`."""

from __future__ import annotations

from pathlib import Path

import click

from kchain.cli.common import console, load_project, say, target_of, target_option


@click.command()
@click.argument("phase")
@click.option("--dataset", metavar="OWNER/SLUG", help="Take it from this data set.")
@click.option("--kernel", metavar="OWNER/SLUG", help="Take it from the output of this kernel.")
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Upload this folder as a private data set.")
@click.option("--inside", metavar="FOLDER", help="Folder in it, if it holds several adapters.")
@click.option("--pad-id", type=int, help="Pad token id it was trained with, if no result file says it.")
@target_option
def adopt(
    phase: str,
    dataset: str | None,
    kernel: str | None,
    folder: Path | None,
    inside: str | None,
    pad_id: int | None,
    target: str | None,
) -> None:
    """Make an adapter that was trained elsewhere the result of PHASE.

    The adapter is downloaded and verified like any other. With --kernel and the phase's own kernel, this rebuilds what
    a lost journal knew.
    """
    if sum(place is not None for place in (dataset, kernel, folder)) != 1:
        raise click.UsageError("give exactly one of --dataset, --kernel, --dir")
    chain = load_project()
    from kchain.cli.progress import Terminal
    from kchain.orchestrator.adopt import Origin
    from kchain.orchestrator.adopt import adopt as take_over
    from kchain.units import size

    origin = Origin(dataset, kernel, folder, inside)
    with Terminal(console) as terminal:
        result = take_over(chain, phase, target_of(chain, target), origin, terminal, pad_id=pad_id)
    what = "adapter" if chain.phase(phase).use is None else "result"
    text = f"{phase} is {'adopted' if result.adopted else 'done'}: {what} {result.sha256[:12]}, "
    say(f"{text}{size(result.bytes)}, from {result.ref}. See what is next: kchain status")
