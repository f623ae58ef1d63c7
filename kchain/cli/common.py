"""What every command shares: the console, the project in the current folder, the target option."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console

from kchain.phases import Chain, find_root, load_chain

console = Console(highlight=False, soft_wrap=False)

Command = TypeVar("Command", bound=Callable[..., Any])

# Commands that a hint names, with their phase; the second kind takes no --target.
_NAMED = re.compile(
    r"\bkchain ((?:adopt|review|render|push|logs|pull|export|publish|chat|evaluate)(?: \w[\w-]*)?"
    r"|watch|run|status|doctor)\b"
)
_WITHOUT_TARGET = re.compile(r"\bkchain (rehearse)\b")
# What was typed in front of and behind this command's name; a hint repeats it, so that it can be pasted.
_typed = {"folder": "", "target": ""}


def change_folder(folder: str) -> None:
    """Work as if kchain had been started in `folder` (the -C option)."""
    if folder != ".":
        os.chdir(folder)
        _typed["folder"] = f"-C {shlex.quote(folder)} "


def as_typed(text: str) -> str:
    """A hint with the -C and --target of this command added to the commands that it names and that take them."""
    text = _NAMED.sub(lambda found: f"kchain {_typed['folder']}{found[1]}{_typed['target']}", text)
    return _WITHOUT_TARGET.sub(lambda found: f"kchain {_typed['folder']}{found[1]}", text)


def load_project() -> Chain:
    """The chain of the project at or above the current folder.

    Raises:
        InputError: there is no project, or its files have problems.
    """
    return load_chain(find_root(Path.cwd()))


def print_json(value: Any) -> None:
    """One JSON document on stdout, for programs."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    click.echo(json.dumps(value, indent=2, ensure_ascii=not utf8))


def target_option(command: Command) -> Command:
    """Add `--target`; the command receives None where the chain's own target holds."""
    return click.option(
        "--target",
        metavar="TARGET",
        default=None,
        callback=_remember_target,
        help="kaggle, local, or the URL of a kchain server.  [default: the chain's]",
    )(command)


def _remember_target(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    _typed["target"] = f" --target {shlex.quote(value)}" if value else ""
    return value


def json_option(command: Command) -> Command:
    """Add `--json`; the command receives `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead.")(command)
