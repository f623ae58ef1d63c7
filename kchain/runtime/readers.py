"""Rows out of files: JSON lines, JSON, CSV, Parquet, and data sets of Hugging Face."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .failure import Stop
from .paths import refuse_gzip

Row = dict[str, Any]
Broken = Callable[[str], None]  # told about each row that cannot be read
LISTED = 20  # files of a data set that a message names


def find_file(folder: Path, name: str | None) -> Path:
    """The file of that name; without a name, the only readable one in the folder or one level below it.

    Raises:
        Stop: there is no such file, or without a name none or several; says which there are.
    """
    if name is not None and (folder / name).is_file():
        return folder / name
    readable = _readable(folder)
    if name is None and len(readable) == 1:
        return readable[0]
    there = [str(path.relative_to(folder)) for path in readable] or sorted(path.name for path in folder.iterdir())
    more = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
    listed = f"there is {', '.join(there[:LISTED]) or 'nothing'}{more}"
    if name is not None:
        raise Stop(
            f"there is no file {folder / name}; {listed}", "correct the source's file; upper and lower case count"
        )
    found = "several files that can be read" if readable else f"no file that can be read ({', '.join(READERS)})"
    raise Stop(
        f"the source names no file, and {folder} holds {found}: {listed}", "set file in the source to one of them"
    )


def _readable(folder: Path) -> list[Path]:
    """What READERS can read, at most one level deep: Kaggle's mounts are slow to walk. Hidden files do not count."""
    paths = (path for pattern in ("*", "*/*") for path in folder.glob(pattern))
    return sorted(path for path in paths if path.suffix.lower() in READERS and path.name[0] != "." and path.is_file())


def rows(path: Path, broken: Broken) -> Iterator[Row]:
    """The rows of a file, by its suffix; a row that cannot be read is reported and left out.

    Raises:
        Stop: the file is of an unknown kind, or damaged as a whole.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise Stop(f"{path.name}: unknown kind of file", f"use one of {', '.join(READERS)}")
    refuse_gzip(path)
    return reader(path, broken)


def huggingface(name: str, subset: str | None, split: str) -> Iterator[Row]:
    """The rows of a data set of Hugging Face; needs internet."""
    import datasets  # 2 s and pandas: only for those who need it

    yield from datasets.load_dataset(name, subset, split=split)


def _json_lines(path: Path, broken: Broken) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:  # bad JSON, bad UTF-8
                broken(f"line {number}: {error}")
                continue
            if isinstance(row, dict):
                yield row
            else:
                broken(f"line {number}: not a JSON object")


def _json(path: Path, broken: Broken) -> Iterator[Row]:
    """A JSON array of objects; a file of that name may also hold JSON lines."""
    with path.open("rb") as file:
        beginning = file.read(1024).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not beginning.startswith(b"["):
        yield from _json_lines(path, broken)
        return
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise Stop(f"{path.name} is not valid JSON: {error}", "repair the file, or make the source optional") from error
    for number, row in enumerate(values, start=1):
        if isinstance(row, dict):
            yield row
        else:
            broken(f"element {number}: not a JSON object")


def _csv(path: Path, broken: Broken) -> Iterator[Row]:
    csv.field_size_limit(2**27)
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ","):
            if None in row or None in row.values():  # more or fewer cells than the header has
                broken(f"row with {len(row)} cells, not as many as the header")
            else:
                yield row


def _parquet(path: Path, broken: Broken) -> Iterator[Row]:
    import datasets

    yield from datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True)


READERS: dict[str, Callable[[Path, Broken], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
