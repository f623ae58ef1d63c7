"""What commands share: the project and its target, options, and how sentences, tables, JSON and errors are shown."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from kchain.errors import InputError
from kchain.phases import Chain, find_root, load_chain

if TYPE_CHECKING:
    from kchain.client.target import Target

console = Console(highlight=False, soft_wrap=False)

Command = TypeVar("Command", bound=Callable[..., Any])

# Columns that the widest table of a chain needs.
_WIDTH = 150
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


def in_project() -> bool:
    """Whether the current folder is in a project."""
    try:
        find_root(Path.cwd())
    except InputError:
        return False
    return True


def load_project() -> Chain:
    """The chain of the project at or above the current folder.

    Raises:
        InputError: there is no project, or its files have problems.
    """
    return load_chain(find_root(Path.cwd()))


def target_of(chain: Chain, name: str | None) -> Target:
    """Where a command works: the target that was typed, or the chain's own."""
    from kchain.client.target import Target

    return Target(name or chain.target, chain.owner, chain.root)


def phase_names(chain: Chain, phase: str | None) -> list[str]:
    """The phase that was typed, or all.

    Raises:
        InputError: there is no such phase.
    """
    return [chain.phase(phase).name] if phase else [each.name for each in chain.phases]


def say(text: str) -> None:
    """A whole line that a terminal may wrap, with commands as they can be pasted; nothing in it is markup."""
    console.print(as_typed(text), markup=False, soft_wrap=True)


def fail(message: str, hint: str) -> None:
    """Print an error to stderr: what is wrong, then what to do."""
    click.echo(f"{click.style('Error:', fg='red', bold=True)} {message}", err=True)
    if hint:
        lines = as_typed(hint).replace("\n", "\n       ")
        click.echo(f"{click.style('  try:', bold=True)} {lines}", err=True)


def print_json(value: Any, indent: int | None = 2) -> None:
    """One JSON document on stdout, for programs; in one line with indent=None."""
    utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    click.echo(json.dumps(value, indent=indent, ensure_ascii=not utf8))


def progress_console(as_json: bool) -> Console:
    """Where progress is shown: on stderr where a program reads stdout."""
    return Console(stderr=True, highlight=False) if as_json else console


def new_table(*columns: str) -> Table:
    """A plain table; a column whose name starts with `>` is set to the right."""
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left", no_wrap=True)
    return shown


def print_table(on: Console, shown: Table) -> None:
    """Whole lines, also where the terminal is narrow: it may wrap them, a cut figure helps nobody."""
    wide = Console(file=on.file, width=max(on.width, _WIDTH), force_terminal=on.is_terminal, highlight=False)
    wide.print(shown)


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


def base_option(command: Command) -> Command:
    """Add `--base`; the command receives None where the server on this machine has the base model."""
    return click.option(
        "--base",
        type=click.Path(path_type=Path),
        metavar="DIR",
        help="Folder of the original base model.  [default: the local server's copy]",
    )(command)


def precision_option(command: Command) -> Command:
    """Add `--precision`."""
    return click.option(
        "--precision",
        type=click.Choice(("auto", "fp16", "bf16", "fp32", "nf4")),
        default="auto",
        help="Number format; nf4: weights in 4 bits.  [default: fp16 on a GPU, fp32 on a CPU]",
    )(command)


def gguf_kind(form: str, kind: str | None) -> str:
    """What `--type` says, or its default.

    Raises:
        UsageError: the format has no types.
    """
    if kind is not None and form != "gguf":
        raise click.UsageError("--type belongs to --format gguf")
    return kind or "f16"
