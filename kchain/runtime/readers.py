"""Rows out of files, one at a time: JSON lines, JSON, CSV, Parquet, and data sets of Hugging Face.

A reader gives (number, row) for each row, where `number` is the line of the file (the row, where there are no lines),
and a `Broken` in place of a row that cannot be read. So every row is accounted for, and memory does not grow with the
file.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .failure import Stop

Row = dict[str, Any]
BATCH = 1000  # rows of a table that are in memory at a time
CHUNK = 2**16  # characters of a JSON array that are read at a time
LARGEST = 2**26  # characters of one element of a JSON array
CELL = 2**27  # characters of one cell of a CSV file
GZIP = b"\x1f\x8b"
# What text files turn out to be, by their first bytes.
FOREIGN = {
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"PAR1": "a Parquet file",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class Broken:
    """A row that cannot be read: why, and what stands there."""

    reason: str
    raw: str


Rows = Iterator[tuple[int, Row | Broken]]


def kind(path: Path) -> str:
    """The suffix that tells how a file is read, in small letters; `.gz` at the end does not count."""
    name = path.name.lower().removesuffix(".gz")
    return Path(name).suffix


def rows(path: Path) -> Rows:
    """The rows of a file, by its suffix. Gzip is unpacked on the way, whatever the name says.

    Raises:
        Stop: the file is of an unknown kind, or damaged as a whole.
    """
    reader = READERS.get(kind(path))
    if reader is None:
        raise Stop(f"{path.name}: unknown kind of file", f"use one of {', '.join(READERS)}")
    try:
        yield from reader(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise Stop(f"{path.name} is damaged gzip: {error}", "fetch or pack the file again") from error


def huggingface(name: str, subset: str | None, split: str) -> Rows:
    """The rows of a data set of Hugging Face; needs internet."""
    import datasets  # 2 s and pandas: only for those who need it

    tables = datasets.load_dataset(name, subset, split=split).with_format("arrow").iter(batch_size=BATCH)
    yield from enumerate((row for table in tables for row in table.to_pylist()), start=1)


def _open(path: Path) -> io.BufferedReader | gzip.GzipFile:
    with path.open("rb") as file:
        beginning = file.read(6)
    if beginning.startswith(GZIP):
        return gzip.open(path, "rb")
    for magic, what in FOREIGN.items():
        if beginning.startswith(magic):
            raise Stop(
                f"{path.name} is {what}, although its name says otherwise", "unpack it, or save it as UTF-8 text"
            )
    return path.open("rb")


def _json_lines(path: Path) -> Rows:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.isspace():
                yield number, _object(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)


def _object(line: bytes) -> Row | Broken:
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError) as error:  # bad JSON, bad UTF-8, brackets without end
        return Broken(str(error), line.decode("utf-8", "replace"))
    return row if isinstance(row, dict) else Broken("not a JSON object", line.decode())


def _json(path: Path) -> Rows:
    """An array of objects, one object, an object around one array of them; or JSON lines under that name."""
    with _open(path) as file:
        first = file.readline(CHUNK).removeprefix(b"\xef\xbb\xbf")
        while first and first.isspace():
            first = file.readline(CHUNK)
    if first.lstrip().startswith(b"["):
        values = _array(path)
    elif first.lstrip().startswith(b"{") and isinstance(_object(first), Broken) and (whole := _document(path)):
        values = iter(whole)
    else:
        yield from _json_lines(path)
        return
    for number, row in enumerate(values, start=1):
        yield number, row if isinstance(row, dict) else Broken("not a JSON object", json.dumps(row))


def _document(path: Path) -> list[Any]:
    """The objects of a file that is one JSON object over several lines; none where it is something else."""
    try:
        with _open(path) as file:
            value = json.load(file)
    except (ValueError, RecursionError):
        return []
    inside = list(value.values())
    if len(inside) == 1 and isinstance(inside[0], list):
        return inside[0]
    return [value]


def _array(path: Path) -> Iterator[Any]:
    found = 0
    try:
        with io.TextIOWrapper(_open(path), encoding="utf-8-sig") as file:
            for element in _elements(file):
                found += 1
                yield element
    except (ValueError, RecursionError) as error:
        reason = f"{path.name} is not valid JSON after element {found}: {error}"
        raise Stop(reason, "repair the file, or make the source optional") from error


def _elements(file: io.TextIOBase) -> Iterator[Any]:
    """The elements of a JSON array; holds one chunk and one element in memory."""
    text, at, first = file.read(CHUNK).lstrip()[1:], 0, True
    while True:
        try:
            at = _skip(text, at)
            if text[at] == "]":
                break
            if not first and text[at] != ",":
                raise ValueError(f"expected a comma, found {text[at]!r}")
            value, end = _DECODER.raw_decode(text, at if first else _skip(text, at + 1))
            text[end]  # at the end of the chunk, a number may go on in the next one
        except (IndexError, json.JSONDecodeError) as error:
            more = file.read(max(CHUNK, len(text) - at)) if len(text) - at < LARGEST else ""
            if not more:
                # Its place would count from the beginning of the chunk.
                raise ValueError(error.msg if isinstance(error, ValueError) else "it ends in the middle") from error
            text, at = text[at:] + more, 0
            continue
        yield value
        at, first = end, False
    if text[at + 1 :].strip() or file.read(CHUNK).strip():
        raise ValueError("there is more after the end of the array")


def _skip(text: str, at: int) -> int:
    """The next place that is not white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _csv(path: Path) -> Rows:
    csv.field_size_limit(CELL)
    delimiter = "\t" if kind(path) == ".tsv" else ","
    # What is not UTF-8 passes as half surrogate pairs, so that it breaks its own row and no other.
    with io.TextIOWrapper(_open(path), encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        table = csv.reader(file, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        while True:
            number = table.line_num + 1
            try:
                cells = next(table)
            except StopIteration:
                return
            except csv.Error as error:
                yield number, Broken(f"{error}; it ends at line {table.line_num}", "")
                continue
            if not cells:
                continue
            if header is None:
                header = _header(path, cells)
            else:
                yield number, _cells(header, cells)


def _header(path: Path, cells: list[str]) -> list[str]:
    twice = sorted({name for name in cells if cells.count(name) > 1})
    if twice:
        raise Stop(f"{path.name} has several columns {', '.join(map(repr, twice))}", "give each column its own name")
    return cells


def _cells(header: list[str], cells: list[str]) -> Row | Broken:
    raw = ",".join(cells)
    if not raw.isascii() and raw.encode("utf-8", "replace") != raw.encode("utf-8", "surrogateescape"):
        return Broken("not UTF-8", raw.encode("utf-8", "replace").decode())
    if len(cells) != len(header):
        return Broken(f"{len(cells)} cells, the header has {len(header)}", raw)
    return dict(zip(header, cells, strict=True))


def _parquet(path: Path) -> Rows:
    import pyarrow
    from pyarrow import parquet

    try:
        batches = parquet.ParquetFile(path).iter_batches(batch_size=BATCH)
        yield from enumerate((row for batch in batches for row in batch.to_pylist()), start=1)
    except (pyarrow.ArrowException, UnicodeDecodeError, OSError) as error:
        raise Stop(f"{path.name} is damaged, or no Parquet file: {error}", "fetch or write the file again") from error


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".csv": _csv,
    ".tsv": _csv,
    ".parquet": _parquet,
}
# Kinds of source whose rows are not in files of the session -> what reads them, from their table in PARAMETERS["data"].
SOURCES: dict[str, Callable[[dict[str, Any]], Rows]] = {
    "huggingface": lambda source: huggingface(
        source["huggingface"], source.get("subset"), source.get("split") or "train"
    ),
}
