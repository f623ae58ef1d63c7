"""Put data sets and models of any owner into a server's folder, whether the server runs or not.

A rehearsal then finds them under the very names the chain uses on Kaggle. Publishing the same files again changes
nothing.
"""

from __future__ import annotations

import re
import sqlite3
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from kchain.errors import InputError
from kchain.server import trees
from kchain.server.context import Context
from kchain.server.db import Database
from kchain.server.wire import ApiError

_PART = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


def dataset_folder(root: Path, *parts: str | int) -> Path:
    """Where a data set version lies: owner, slug, number."""
    return root.resolve().joinpath("datasets", *map(str, parts))


def model_folder(root: Path, *parts: str | int) -> Path:
    """Where a model version lies: owner, model, framework, variation, number."""
    return root.resolve().joinpath("models", *map(str, parts))


def publish_dataset(root: Path, ref: str, folder: Path) -> int:
    """Make `folder` the latest version of the public data set `ref`.

    Args:
        root: the server's folder; made when missing.
        ref: "owner/slug".
        folder: copied as it is, links that leave it and special files left out.

    Returns:
        the version's number; the present one when its files are the same.

    Raises:
        InputError: `ref` or `folder` is no such thing.
    """
    owner, slug = _split(ref, "owner/slug")
    digest, size = _fingerprint(folder)
    database, now = Database(root), time.time()
    latest = _latest(database, owner, slug)
    if latest is not None and latest["fingerprint"] == digest and not latest["failed"]:
        return int(latest["number"])
    copy = trees.copy_tree(folder, root)
    try:
        with database.write() as db:
            dataset = _row(db, "datasets", {"owner": owner, "slug": slug}, {"license": "unknown"})
            last = db.execute("SELECT coalesce(max(number), 0) FROM dataset_versions WHERE dataset = ?", (dataset,))
            number = int(last.fetchone()[0]) + 1
            trees.settle(copy, dataset_folder(root, owner, slug, number))
            db.execute(
                "INSERT INTO dataset_versions (dataset, number, fingerprint, bytes, created, ready)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (dataset, number, digest, size, now, now),
            )
    finally:
        trees.remove_tree(copy)
    return number


def publish_model(root: Path, ref: str, folder: Path) -> None:
    """Make `folder` the public model version `ref`.

    Args:
        root: the server's folder; made when missing.
        ref: "owner/model/framework/variation/version", as in a kernel's model sources.
        folder: copied as it is.

    Raises:
        InputError: `ref` or `folder` is no such thing, or this version exists with other files.
    """
    owner, slug, framework, variation, version = _split(ref, "owner/model/framework/variation/version")
    if not version.isdigit() or version != str(int(version)):
        raise InputError(f"{ref!r}: the version must be a number")
    digest, size = _fingerprint(folder)
    database = Database(root)
    present = database.one(
        "SELECT fingerprint FROM model_versions JOIN models ON models.id = model_versions.model"
        " WHERE owner = ? AND slug = ? AND framework = ? AND variation = ? AND number = ?",
        *(owner, slug, framework, variation, int(version)),
    )
    if present is not None and present["fingerprint"] == digest:
        return
    if present is not None:
        raise InputError(f"{ref} is published already, with other files", "give the new files the next version")
    copy = trees.copy_tree(folder, root)
    try:
        with database.write() as db:
            model = _row(db, "models", {"owner": owner, "slug": slug}, {})
            trees.settle(copy, model_folder(root, owner, slug, framework, variation, version))
            db.execute(
                "INSERT INTO model_versions (model, framework, variation, number, fingerprint, bytes, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (model, framework, variation, int(version), digest, size, time.time()),
            )
    finally:
        trees.remove_tree(copy)


def _latest(database: Database, owner: str, slug: str) -> sqlite3.Row | None:
    return database.one(
        "SELECT dataset_versions.* FROM dataset_versions JOIN datasets ON datasets.id = dataset_versions.dataset"
        " WHERE owner = ? AND slug = ? ORDER BY number DESC",
        *(owner, slug),
    )


def _row(db: sqlite3.Connection, table: str, key: dict[str, str], more: dict[str, Any]) -> int:
    """The id of the public data set or model with this owner and slug; made when missing."""
    values = {**key, "title": key["slug"], "private": 0, "created": time.time(), **more}
    marks = ", ".join("?" * len(values))
    db.execute(f"INSERT OR IGNORE INTO {table} ({', '.join(values)}) VALUES ({marks})", tuple(values.values()))
    found = db.execute(f"SELECT id FROM {table} WHERE owner = ? AND slug = ?", (key["owner"], key["slug"]))
    return int(found.fetchone()[0])


def _split(ref: str, form: str) -> list[str]:
    parts = ref.lower().split("/")
    if len(parts) == form.count("/") + 1 and all(_PART.fullmatch(part) for part in parts):
        return parts
    raise InputError(f"{ref!r} is no reference", f"write it as {form}")


def _fingerprint(folder: Path) -> tuple[str, int]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    return trees.fingerprint(folder)


# What a signed address of a data set or model version leads to: one file, or all of them in one archive.


def file(context: Context, kind: str, path: str) -> Path:
    """The file behind a signed address.

    Args:
        kind: "dataset" or "model" for one file, "dataset-zip" or "model-tar" for all files of a version.
        path: "owner/slug/number/name", for a model "owner/model/framework/variation/number/name".

    Raises:
        ApiError: 404, when it is not there (any more).
    """
    is_model = kind.startswith("model")
    parts = path.split("/", 5 if is_model else 3)
    folder = (model_folder if is_model else dataset_folder)(context.root, *parts[:-1])
    if kind in _PACKERS:
        return _packed(context, folder, kind)
    found = dict(trees.walk(folder)).get(parts[-1])
    if found is None:
        raise ApiError(404, f"There is no file {parts[-1]!r}.")
    return found


def forget(context: Context, folder: Path) -> None:
    """Remove a version's files and its archive."""
    for kind in _PACKERS:
        _archive(context, folder, kind).unlink(missing_ok=True)
    trees.remove_tree(folder)


def _packed(context: Context, folder: Path, kind: str) -> Path:
    """An archive of a version's files, made at the first download; its bytes and time then stay: it can be resumed."""
    archive = _archive(context, folder, kind)
    if archive.exists():
        return archive
    if not folder.is_dir():
        raise ApiError(404, "There is no such version.")
    archive.parent.mkdir(exist_ok=True)
    with NamedTemporaryFile(dir=archive.parent, delete=False) as temporary:
        _PACKERS[kind][1](temporary, folder)
    return Path(temporary.name).replace(archive)


def _archive(context: Context, folder: Path, kind: str) -> Path:
    """Where the archive of a version lies; no owner or slug has a "+", so no two versions share a name."""
    name = "+".join(folder.relative_to(context.root.resolve()).parts)
    return context.root / "archives" / (name + _PACKERS[kind][0])


def _zip(to: IO[bytes], folder: Path) -> None:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as packed:
        for name, real in trees.walk(folder):
            packed.write(real, name)


def _tar(to: IO[bytes], folder: Path) -> None:
    # Weights do not compress; the client wants gzip nevertheless.
    with tarfile.open(fileobj=to, mode="w:gz", compresslevel=1) as packed:
        for name, real in trees.walk(folder):
            packed.add(real, name)


_PACKERS: dict[str, tuple[str, Callable[[IO[bytes], Path], None]]] = {
    "dataset-zip": (".zip", _zip),
    "model-tar": (".tar.gz", _tar),
}
