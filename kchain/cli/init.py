"""`kchain init`."""

from __future__ import annotations

import json
import os
import shlex
import sys
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
    owner, place = owner or kaggle_user(), shlex.quote(str(folder))
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


def kaggle_user() -> str | None:
    """The user name in KAGGLE_USERNAME or kaggle.json, None where neither says; nobody is asked over the network."""
    if name := os.environ.get("KAGGLE_USERNAME", "").strip():
        return name
    try:
        found = json.loads((_config_folder() / "kaggle.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    user = found.get("username") if isinstance(found, dict) else None
    return user if isinstance(user, str) and user else None


def _config_folder() -> Path:
    """Where Kaggle's client keeps kaggle.json: KAGGLE_CONFIG_DIR, else ~/.kaggle, else the XDG folder on Linux."""
    if named := os.environ.get("KAGGLE_CONFIG_DIR"):
        return Path(named)
    folder = Path.home() / ".kaggle"
    if folder.exists() or not sys.platform.startswith("linux"):
        return folder
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
