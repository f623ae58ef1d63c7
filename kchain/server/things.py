"""Versioned things: what data sets and models have in common.

A thing has an owner, a slug and a title, and is private or public. Its versions are folders of files that never change;
a new one is processed for a while and then READY. A data set has one line of versions, a model one for each of its
variations, which a framework and a slug name.
"""

from __future__ import annotations

import sqlite3
import tarfile
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

from kchain.server import trees
from kchain.server.db import Database, Row
from kchain.server.wire import ApiError, Paging, Request, Text, denied

if TYPE_CHECKING:
    from kchain.server.context import Context

# What a version goes through before READY, in equal parts of the profile's dataset_seconds.
STAGES = ("NOT_YET_PERSISTED", "BLOBS_RECEIVED", "BLOBS_DECOMPRESSED", "BLOBS_COPIED_TO_SDS")


@dataclass(frozen=True)
class Kind:
    """Data sets, or models.

    Attributes:
        word: "dataset" or "model", in names and for people.
        line: the columns that name one line of versions; the first holds the thing's row id.
        packed: what the name of an archive of a whole version ends in.
    """

    word: str
    line: tuple[str, ...]
    packed: str

    @property
    def table(self) -> str:
        """Of the things; also how permissions and folders are called."""
        return f"{self.word}s"

    @property
    def versions(self) -> str:
        """The table of the versions."""
        return f"{self.word}_versions"

    def folder(self, root: Path, *parts: str | int) -> Path:
        """Where a version's files are, by `parts`: owner, slug, the rest of the line, number; with fewer, above it."""
        return root.resolve().joinpath(self.table, *map(str, parts))

    def parts(self, thing: Row, version: Row) -> tuple[str, ...]:
        """What names a version: owner, slug, the rest of the line, number."""
        return (thing["owner"], thing["slug"], *(version[name] for name in self.line[1:]), str(version["number"]))


DATASET = Kind("dataset", ("dataset",), ".zip")
MODEL = Kind("model", ("model", "framework", "variation"), ".tar.gz")


@dataclass(frozen=True)
class Content:
    """The files of a version to be.

    Attributes:
        folder: temporary; it is moved to its place.
        fingerprint: of the files, with their bytes together.
        failed: an archive in it was damaged or unsafe; the version is then FAILED, as on Kaggle.
        tokens: of the uploads that it was made of.
    """

    folder: Path
    fingerprint: tuple[str, int]
    failed: bool = False
    tokens: tuple[str, ...] = ()


class ThingRef(Request):
    """What names a thing in a request."""

    owner_slug: Text = ""
    slug: Text = ""


class Search(Paging):
    """What a list of things can be filtered by."""

    search: Text = ""


def find(context: Context, user: str, kind: Kind, asked: ThingRef, to: str = "get") -> Row:
    """The thing that a request names.

    Args:
        to: the permission it takes; all but "get" are the owner's alone.

    Raises:
        ApiError: 403, for one that is not there or not this user's: Kaggle does not tell them apart.
    """
    owner, slug = asked.owner_slug.lower(), asked.slug.lower()
    row = context.db.one(f"SELECT * FROM {kind.table} WHERE owner = ? AND slug = ?", owner, slug)
    if row is None or (row["owner"] != user and (to != "get" or row["private"])):
        raise denied(f"{kind.table}.{to}")
    return row


def visible(context: Context, user: str, kind: Kind, owner: str, asked: Search) -> list[Row]:
    """The things that this user may read, newest first; of one owner where `owner` is not ""."""
    search = asked.search.lower()
    return [
        row
        for row in context.db.all(f"SELECT * FROM {kind.table} ORDER BY created DESC")
        if (row["owner"] == user or not row["private"])
        and owner in ("", row["owner"])
        and search in f"{row['slug']} {row['title']}".lower()
    ]


def versions(db: Database, kind: Kind, *line: str | int) -> list[Row]:
    """The versions of a line, newest first; with less than a whole line, those of every line that begins so."""
    named = " AND ".join(f"{name} = ?" for name in kind.line[: len(line)])
    return db.all(f"SELECT * FROM {kind.versions} WHERE {named} ORDER BY number DESC", *line)


def word(version: Row) -> str:
    """Kaggle's word for where a version is on its way to READY."""
    if version["failed"]:
        return "FAILED"
    now, span = time.time(), version["ready"] - version["created"]
    if now >= version["ready"] or span <= 0:
        return "READY"
    return STAGES[int(max(now - version["created"], 0.0) / span * len(STAGES))]


def ready_version(context: Context, dataset: int) -> Row | None:
    """The newest version of a data set that is READY."""
    return next((version for version in versions(context.db, DATASET, dataset) if word(version) == "READY"), None)


def add_version(
    db: sqlite3.Connection,
    kind: Kind,
    root: Path,
    thing: Row,
    line: tuple[str | int, ...],
    content: Content,
    number: int | None = None,
    **more: Any,
) -> Row:
    """Record a version and move its files into place.

    Args:
        line: values of `kind.line`.
        number: the next one where it is None.
        more: other columns: `notes`; `ready`, seconds since 1970, at once where it is left out.
    """
    named = " AND ".join(f"{name} = ?" for name in kind.line)
    if number is None:
        last = db.execute(f"SELECT coalesce(max(number), 0) AS n FROM {kind.versions} WHERE {named}", line)
        number = int(last.fetchone()["n"]) + 1
    trees.settle(content.folder, kind.folder(root, thing["owner"], thing["slug"], *line[1:], number))
    digest, size = content.fingerprint
    now = time.time()
    values: dict[str, Any] = {
        **dict(zip(kind.line, line, strict=True)),
        "number": number,
        "fingerprint": digest,
        "bytes": size,
    }
    values |= {"failed": content.failed, "created": now, "ready": now, **more}
    marks = ", ".join("?" * len(values))
    made = db.execute(f"INSERT INTO {kind.versions} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
    row: Row = db.execute(f"SELECT * FROM {kind.versions} WHERE id = ?", (made.lastrowid,)).fetchone()
    return row


def files_of(context: Context, kind: Kind, thing: Row, version: Row) -> list[tuple[str, Path]]:
    """The files of a version, as (name, path)."""
    return list(trees.walk(kind.folder(context.root, *kind.parts(thing, version))))


def address(context: Context, kind: Kind, thing: Row, version: Row, file: str) -> str:
    """The signed address of one file of a version, or of an archive of all of them where `file` is "".

    Raises:
        ApiError: 404, when it has no such file.
    """
    where = "/".join(kind.parts(thing, version))
    if not file:
        return context.signed(f"{kind.word}-packed/{where}/{thing['slug']}{kind.packed}")
    if file not in dict(files_of(context, kind, thing, version)):
        raise ApiError(404, f"There is no file {file!r}.")
    return context.signed(f"{kind.word}/{where}/{file}")


def served(context: Context, kind_word: str, path: str) -> Path:
    """The file behind an address that `address` made.

    Args:
        kind_word: "dataset" or "model" for one file, with "-packed" for the archive of a version.
        path: the version's parts and the file's name, with '/' between them.

    Raises:
        ApiError: 404, when it is not there (any more).
    """
    word, _, packed = kind_word.partition("-")
    kind = MODEL if word == MODEL.word else DATASET
    *parts, file = path.split("/", len(kind.line) + 2)
    folder = kind.folder(context.root, *parts)
    if packed:
        return _packed(context, kind, folder)
    found = dict(trees.walk(folder)).get(file)
    if found is None:
        raise ApiError(404, f"There is no file {file!r}.")
    return found


def remove(context: Context, kind: Kind, thing: Row, gone: Iterable[Row]) -> None:
    """Remove the files and the archives of versions; what running sessions mounted of them stays theirs."""
    for version in gone:
        folder = kind.folder(context.root, *kind.parts(thing, version))
        _archive(context, kind, folder).unlink(missing_ok=True)
        trees.remove_tree(folder)


def _packed(context: Context, kind: Kind, folder: Path) -> Path:
    """An archive of a version's files, made at the first download; its bytes and time then stay: it can be resumed."""
    archive = _archive(context, kind, folder)
    if archive.exists():
        return archive
    if not folder.is_dir():
        raise ApiError(404, "There is no such version.")
    archive.parent.mkdir(exist_ok=True)
    with NamedTemporaryFile(dir=archive.parent, delete=False) as temporary:
        if kind is DATASET:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as zipped:
                for name, real in trees.walk(folder):
                    zipped.write(real, name)
        else:  # weights do not compress; the client wants gzip nevertheless
            with tarfile.open(fileobj=temporary, mode="w:gz", compresslevel=1) as tape:
                for name, real in trees.walk(folder):
                    tape.add(real, name)
    return Path(temporary.name).replace(archive)


def _archive(context: Context, kind: Kind, folder: Path) -> Path:
    """Where the archive of a version is kept; no owner or slug has a "+", so no two versions share a name."""
    name = "+".join(folder.relative_to(context.root.resolve()).parts)
    return context.root / "archives" / (name + kind.packed)
