"""What every command shares: the console, the project in the current folder, the target option."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from kchain.phases import Chain, find_root, load_chain

console = Console(highlight=False, soft_wrap=False)

Command = TypeVar("Command", bound=Callable[..., Any])


def change_folder(folder: str) -> None:
    """Work as if kchain had been started in `folder` (the -C option)."""
    if folder != ".":
        os.chdir(folder)


def load_project() -> Chain:
    """The chain of the project at or above the current folder.

    Raises:
        InputError: there is no project, or its files have problems.
    """
    return load_chain(find_root(Path.cwd()))


def print_json(value: Any) -> None:
    """One JSON document on stdout, for programs."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def target_option(command: Command) -> Command:
    """Add `--target`; the command receives None where the chain's own target holds."""
    return click.option(
        "--target",
        metavar="TARGET",
        default=None,
        help="Who answers: kaggle, local, or the URL of a kchain server.  [default: the chain's]",
    )(command)


def json_option(command: Command) -> Command:
    """Add `--json`; the command receives `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")(command)
