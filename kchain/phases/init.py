"""Make a project out of a shipped example: the chain file, the phase files, and what git is to leave alone."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from kchain.errors import InputError
from kchain.files import write
from kchain.phases.resolve import CHAIN_FILE

# Name -> what it is for; the first is the default.
EXAMPLES = {
    "qwen-t4": "four phases on Qwen2.5-0.5B-Instruct, for Kaggle's T4",
    "golden-14b-a10g": "a 14 B model in 4 bits on your own 24 GB card",
    "vision-8b-24gb": "an 8 B vision-language model on your own 24 GB card",
    "coder-7b-cpu": "a 7 B model without a GPU",
    "tiny": "the four small phases of kchain demo",
}
# Stands in the shipped chain files where the owner belongs.
PLACEHOLDER = '"your-kaggle-name"'
OWNER = re.compile(r"[a-z0-9][a-z0-9_-]*")
GITIGNORE = Path(".gitignore")
IGNORED = """\
# kchain's journal and the local server's data
.kchain/
# rendered notebooks: made again from the phase files
build/
# adapters and results that were fetched
runs/
# models made of them: kchain export makes them again
exports/
"""


def make_project(folder: Path, example: str, owner: str) -> list[Path]:
    """Write a project; nothing that is there is touched.

    Args:
        folder: made when missing.
        example: one of EXAMPLES.
        owner: Kaggle user name; upper case becomes lower case, as in Kaggle's addresses.

    Returns:
        the files, relative to `folder`, the chain file last: a folder without it is not a project yet.

    Raises:
        InputError: a file is there already, the owner is not a user name, or the folder cannot be written.
    """
    given, owner = owner, owner.lower()
    if not OWNER.fullmatch(owner):
        raise InputError(f"{given!r} is not a Kaggle user name", "letters, digits, - and _: --owner your-name")
    placed = f'"{owner}"'.ljust(len(PLACEHOLDER))
    contents = {GITIGNORE: IGNORED}
    for path, text in example_files(example):
        contents[path] = text.replace(PLACEHOLDER, placed) if path.name == CHAIN_FILE else text
    if (folder / GITIGNORE).is_file():
        del contents[GITIGNORE]  # somebody's own; a project works without ours
    present = [str(path) for path in contents if os.path.lexists(folder / path)]
    if present:
        raise InputError(
            f"{folder} has {', '.join(present)} already; nothing was written",
            "choose another folder, or move them away",
        )
    try:
        for path, text in contents.items():
            write(folder / path, text)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    return list(contents)


def example_files(example: str) -> Iterator[tuple[Path, str]]:
    """The files of a shipped example as they are: (path in the project, text), phase files first."""
    yield from _walk(files("kchain.phases").joinpath("shipped", example), PurePosixPath())


def _walk(folder: Traversable, place: PurePosixPath) -> Iterator[tuple[Path, str]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: (entry.is_file(), entry.name)):
        if entry.is_dir():
            yield from _walk(entry, place / entry.name)
        elif entry.name.endswith(".toml"):
            yield Path(place / entry.name), entry.read_text(encoding="utf-8")
