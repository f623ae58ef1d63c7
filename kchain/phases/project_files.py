"""The project's own files of examples, checked row by row: they travel inside the notebook, one JSON object a line.

Whatever the format: a reviewer reads all of them alike, and a cell holds text only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from kchain.phases.chain import Phase
from kchain.runtime.failure import Stop
from kchain.runtime.readers import READERS, Broken, kind, rows

# Kaggle caps the source of a notebook at 1 MiB.
PROJECT_FILE_LIMIT = 256 * 1024
LINES = ".jsonl"


def travels_as(name: str) -> str:
    """The name of a project's file inside the notebook, where it is JSON lines."""
    return name if name.endswith(LINES) else f"{name}{LINES}"


def project_files(root: Path, phases: Iterable[Phase], problems: list[str]) -> dict[str, str]:
    """JSON lines of every file that a phase names, by its path as written there; what is wrong goes into `problems`."""
    found: dict[str, str] = {}
    for phase in phases:
        for key, file in phase.files.items():
            if file in found:
                continue
            try:
                found[file] = _read_project_file(root, file)
            except ValueError as error:
                problems.append(f"{phase.file}: {key}: {error}")
    return found


def _read_project_file(root: Path, name: str) -> str:
    if not re.fullmatch(r"[\w./-]+", name):
        # The name goes into a magic of the notebook, where IPython would expand other characters.
        raise ValueError(f"{name!r}: letters, digits, '.', '_', '-' and '/' only; rename it")
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f"{name!r} is outside the project")
    if {"", ".", ".."} & set(name.split("/")):
        raise ValueError(f"{name!r}: write the path from the project's folder, without '.', '..' or a leading '/'")
    if kind(path) not in READERS:
        raise ValueError(f"{name!r} is none of {', '.join(READERS)}; write the examples as one of them")
    lines = _json_lines(path, name) if path.suffix == LINES else _other_rows(path, name)
    if not lines:
        raise ValueError(f"{name!r} holds no example")
    text = "".join(f"{line}\n" for line in lines)
    _refuse_large(name, len(text.encode()))
    return text


def _json_lines(path: Path, name: str) -> list[str]:
    text = _read_text(path, name)
    return [_row(name, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _other_rows(path: Path, name: str) -> list[str]:
    """Rows of JSON, CSV and Parquet files, as the notebook would read them."""
    found: list[str] = []
    try:
        # No format is so wordy that a smaller file could come of a larger one than this.
        _refuse_large(name, path.stat().st_size // 4)
        for number, row in rows(path):
            if isinstance(row, Broken):
                raise ValueError(f"{name!r} line {number}: {row.reason}")
            found.append(_row(name, number, json.dumps(row, default=str)))
    except OSError as error:
        raise ValueError(f"{name!r} cannot be read: {error.strerror or error}") from None
    except ModuleNotFoundError as error:
        raise ValueError(
            f'{name!r} needs {error.name}: pip install "kchain[train]", or write it as CSV or JSON'
        ) from None
    except Stop as stop:
        raise ValueError(f"{name!r}: {stop.reason}") from None
    return found


def _read_text(path: Path, name: str) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{name!r} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name!r} is not UTF-8 text") from None
    _refuse_large(name, len(text.encode()))
    return text


def _refuse_large(name: str, size: int) -> None:
    if size > PROJECT_FILE_LIMIT:
        raise ValueError(
            f"{name!r} is over {PROJECT_FILE_LIMIT // 1024} KiB, too large to travel in the notebook; "
            "attach it as a Kaggle data set"
        )


def _row(name: str, number: int, line: str) -> str:
    """One example as one line of JSON."""
    place = f"{name!r} line {number}"
    try:
        row = json.loads(line)
        found = json.dumps(row, ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f'{place} is no JSON object, such as {{"prompt": "...", "completion": "..."}}')
    try:
        found.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{place} holds half of a surrogate pair, which is no character") from None
    return found
