"""The project's own JSONL files, checked line by line: they travel inside the notebook."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from kchain.phases.chain import Phase

# Kaggle caps the source of a notebook at 1 MiB.
PROJECT_FILE_LIMIT = 256 * 1024


def project_files(root: Path, phases: Iterable[Phase], problems: list[str]) -> dict[str, str]:
    """Text of every JSONL file that a phase names, by its path as written there; what is wrong goes into `problems`."""
    found: dict[str, str] = {}
    for phase in phases:
        for index, source in enumerate(phase.data.sources):
            if source.kind != "project" or source.file is None or source.file in found:
                continue
            label = f"{phase.file}: data.sources.{index}.file"
            try:
                found[source.file] = _read_project_file(root, source.file)
            except ValueError as error:
                problems.append(f"{label}: {error}")
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
    if path.suffix != ".jsonl":
        raise ValueError(f"{name!r} is no .jsonl file; attach other formats as a Kaggle data set")
    text = _read_text(path, name)
    rows = [_row(name, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not rows:
        raise ValueError(f"{name!r} holds no example")
    return "".join(f"{row}\n" for row in rows)


def _read_text(path: Path, name: str) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{name!r} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name!r} is not UTF-8 text") from None
    if len(text.encode()) > PROJECT_FILE_LIMIT:
        raise ValueError(
            f"{name!r} is over {PROJECT_FILE_LIMIT // 1024} KiB, too large to travel in the notebook; "
            "attach it as a Kaggle data set"
        )
    return text


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
