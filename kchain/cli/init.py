"""`kchain init`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from kchain.cli.common import say
from kchain.errors import InputError
from kchain.phases.init import EXAMPLES, make_project


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--example",
    type=click.Choice(list(EXAMPLES)),
    default=next(iter(EXAMPLES)),
    show_default=True,
    help="; ".join(f"{name}: {what}" for name, what in EXAMPLES.items()) + ".",
)
@click.option(
    "--owner",
    metavar="NAME",
    help="Kaggle user who will own the kernels.  [default: the user of the Kaggle credentials found here]",
)
def init(folder: Path, example: str, owner: str | None) -> None:
    """Make a project in DIR: kchain.toml and one file per phase.

    Every line of these files is commented; copy a phase file to add a phase. Existing files are never touched.

    \b
      kchain init my-chain && cd my-chain
      kchain plan                  what each phase will do
      kchain review phase1         the notebook, before anything is pushed
    """
    from kchain.client.login import Surroundings, user_name

    owner, place = owner or user_name(Surroundings.here()), shlex.quote(str(folder))
    if owner is None:
        raise InputError(
            "whose kernels will these be? No Kaggle user name was found on this machine",
            f"kchain init {place}{f' --example {example}' if example != next(iter(EXAMPLES)) else ''} "
            "--owner your-kaggle-name",
        )
    written = make_project(folder, example, owner)
    say(f"Made {folder} for {owner.lower()}: {EXAMPLES[example]}.")
    for path in written:
        say(f"  {path}")
    enter = "" if folder == Path() else f"cd {place} && "
    say(f"\nNext: kchain demo {place}" if example == "tiny" else f"\nNext: {enter}kchain plan")
