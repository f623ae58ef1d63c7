"""Put data sets and models of any owner into a server's folder, whether the server runs or not.

A rehearsal then finds them under the very names the chain uses on Kaggle. Publishing the same files again changes
nothing.
"""

from __future__ import annotations

import re
import time
from pathlib import Path

from kchain.errors import InputError
from kchain.server import trees
from kchain.server.db import Database
from kchain.server.things import DATASET, MODEL, Content, Kind, add_version, versions

# Where the files of a version are, for those who look at them without a server: root, owner, slug, ..., number.
dataset_folder, model_folder = DATASET.folder, MODEL.folder

_PART = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


def publish_dataset(root: Path, ref: str, folder: Path) -> int:
    """Make `folder` the latest version of the public data set `ref`.

    Args:
        root: the server's folder; made when missing.
        ref: "owner/slug".
        folder: copied as it is, links that leave it and special files left out.

    Returns:
        the version's number; the present one when its files are the same.

    Raises:
        InputError: `ref` is not a reference, or there is no such folder.
    """
    owner, slug = _split(ref, "owner/slug")
    fingerprint = _fingerprint(folder)
    database = Database(root)
    row = database.one("SELECT id FROM datasets WHERE owner = ? AND slug = ?", owner, slug)
    latest = next(iter(versions(database, DATASET, row["id"])), None) if row is not None else None
    if latest is not None and latest["fingerprint"] == fingerprint[0] and not latest["failed"]:
        return int(latest["number"])
    return _publish(database, root, DATASET, [owner, slug], folder, fingerprint, None)


def publish_model(root: Path, ref: str, folder: Path) -> None:
    """Make `folder` the public model version `ref`.

    Args:
        root: the server's folder; made when missing.
        ref: "owner/model/framework/variation/version", as in a kernel's model sources.
        folder: copied as it is.

    Raises:
        InputError: `ref` is not a reference, there is no such folder, or this version exists with other files.
    """
    *names, version = _split(ref, "owner/model/framework/variation/version")
    if not version.isdigit() or version != str(int(version)):
        raise InputError(f"{ref!r}: the version is not a number", "write it as owner/model/framework/variation/1")
    fingerprint = _fingerprint(folder)
    database = Database(root)
    present = database.one(
        "SELECT fingerprint FROM model_versions JOIN models ON models.id = model_versions.model"
        " WHERE owner = ? AND slug = ? AND framework = ? AND variation = ? AND number = ?",
        *(*names, int(version)),
    )
    if present is not None and present["fingerprint"] != fingerprint[0]:
        raise InputError(f"{ref} is published already, with other files", "give the new files the next version")
    if present is None:
        _publish(database, root, MODEL, names, folder, fingerprint, int(version))


def _publish(
    database: Database,
    root: Path,
    kind: Kind,
    names: list[str],
    folder: Path,
    fingerprint: tuple[str, int],
    number: int | None,
) -> int:
    """Copy a folder to where its version belongs; the thing is made, as a public one, where it is missing."""
    owner, slug, *line = names
    copy = trees.copy_tree(folder, root)
    try:
        with database.write() as db:
            made = f"INSERT OR IGNORE INTO {kind.table} (owner, slug, title, private, created) VALUES (?, ?, ?, 0, ?)"
            if db.execute(made, (owner, slug, slug, time.time())).rowcount and kind is DATASET:
                db.execute("UPDATE datasets SET license = 'unknown' WHERE owner = ? AND slug = ?", (owner, slug))
            thing = db.execute(f"SELECT * FROM {kind.table} WHERE owner = ? AND slug = ?", (owner, slug)).fetchone()
            content = Content(copy, fingerprint)
            return int(add_version(db, kind, root, thing, (thing["id"], *line), content, number)["number"])
    finally:
        trees.remove_tree(copy)


def _split(ref: str, form: str) -> list[str]:
    parts = ref.lower().split("/")
    if len(parts) == form.count("/") + 1 and all(_PART.fullmatch(part) for part in parts):
        return parts
    raise InputError(f"{ref!r} is not a reference", f"write it as {form}")


def _fingerprint(folder: Path) -> tuple[str, int]:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}", "name one that holds the files")
    return trees.fingerprint(folder)
