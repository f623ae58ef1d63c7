"""CreateDataset and CreateDatasetVersion: uploaded blobs become the files of a version, directories unpacked."""

from __future__ import annotations

import shutil
import sqlite3
import tarfile
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from kchain.server import blobs, datasets, files
from kchain.server.context import Context
from kchain.server.publish import dataset_folder
from kchain.server.wire import ApiError, Json, denied, name, number, objects, slug_of, text

SLUG_LENGTH = (6, 50)  # of data set titles and slugs


@dataclass(frozen=True)
class Upload:
    """Blobs laid out as the files of a version to be.

    Attributes:
        folder: temporary, made by `_lay_out`.
        failed: whether an archive in it was damaged or unsafe; the version is then FAILED, as on Kaggle.
        fingerprint: of its files, with their bytes together.
    """

    folder: Path
    tokens: list[str]
    failed: bool
    fingerprint: tuple[str, int]


def create(context: Context, user: str, body: Json) -> Json:
    """CreateDataset. A title or slug that is bad or in use is answered with status "error", not with an HTTP status."""
    title = text(body, "title")
    slug = name(text(body, "slug") or slug_of(title), "slug")
    owner = name(text(body, "ownerSlug") or user, "owner")
    if owner != user:
        raise denied("datasets.create")
    if complaint := _complaint(context, owner, slug, title):
        return {"status": "error", "error": complaint}
    upload = _lay_out(context, user, body)
    try:
        with context.db.write() as db:
            made = db.execute(
                "INSERT INTO datasets (owner, slug, title, subtitle, description, license, private, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(owner, slug, title, text(body, "subtitle"), text(body, "description")),
                    *(text(body, "licenseName"), bool(body.get("isPrivate")), time.time()),
                ),
            )
            _add_version(context, db, (int(made.lastrowid or 0), owner, slug), upload, "Initial release")
    except sqlite3.IntegrityError:
        return {"status": "error", "error": _in_use(title)}
    finally:
        files.remove_tree(upload.folder)
    blobs.discard(context, upload.tokens)
    return _created(context, owner, slug)


def _complaint(context: Context, owner: str, slug: str, title: str) -> str:
    shortest, longest = SLUG_LENGTH
    for what, value in (("title", title), ("slug", slug)):
        if not shortest <= len(value) <= longest:
            return f"The dataset {what} must be between {shortest} and {longest} characters."
    taken = context.db.one("SELECT 1 FROM datasets WHERE owner = ? AND (slug = ? OR title = ?)", owner, slug, title)
    return _in_use(title) if taken is not None else ""


def _in_use(title: str) -> str:
    return f'The requested title "{title}" is already in use by a dataset. Please choose another title.'


def _created(context: Context, owner: str, slug: str) -> Json:
    ref = f"{owner}/{slug}"
    return {"ref": ref, "url": context.page(f"datasets/{ref}"), "status": "Ok", "error": "", "invalidTags": []}


def create_version(context: Context, user: str, body: Json) -> Json:
    """CreateDatasetVersion: 403 for somebody else's data set, and while the first version is being processed."""
    dataset = datasets.find(context, user, body)
    if dataset["owner"] != user:
        raise denied("datasets.update")
    earlier = datasets.versions(context, dataset)
    if len(earlier) == 1 and datasets.word(earlier[0]) not in ("READY", "FAILED"):
        raise denied("datasets.update")
    given = body.get("body") or {}
    if not isinstance(given, dict):
        raise ApiError(400, "body must be an object.")
    upload = _lay_out(context, user, given)
    owner, slug = dataset["owner"], dataset["slug"]
    try:
        with context.db.write() as db:
            _add_version(context, db, (dataset["id"], owner, slug), upload, text(given, "versionNotes"))
            for key in ("subtitle", "description"):
                if value := text(given, key):
                    db.execute(f"UPDATE datasets SET {key} = ? WHERE id = ?", (value, dataset["id"]))
            if given.get("deleteOldVersions"):
                db.executemany("DELETE FROM dataset_versions WHERE id = ?", [(row["id"],) for row in earlier])
    finally:
        files.remove_tree(upload.folder)
    if given.get("deleteOldVersions"):
        for row in earlier:
            datasets.forget(context, dataset_folder(context.root, owner, slug, row["number"]))
    blobs.discard(context, upload.tokens)
    return _created(context, owner, slug)


def create_version_by_id(context: Context, user: str, body: Json) -> Json:
    """CreateDatasetVersionById."""
    row = context.db.one("SELECT * FROM datasets WHERE id = ?", number(body, "id"))
    if row is None:
        raise denied("datasets.update")
    return create_version(context, user, {**body, "ownerSlug": row["owner"], "datasetSlug": row["slug"]})


def _lay_out(context: Context, user: str, body: Json) -> Upload:
    """Copy the request's blobs into a temporary folder, archives unpacked, `directories` as folders.

    Raises:
        ApiError: 400, when an upload is unknown or incomplete, or there is none.
    """
    folder = Path(tempfile.mkdtemp(dir=context.root, prefix=".upload-"))
    try:
        tokens, failed = _lay_out_level(context, user, body, folder)
        if not tokens:
            raise ApiError(400, "A dataset needs at least one file.")
    except BaseException:
        files.remove_tree(folder)
        raise
    return Upload(folder, tokens, failed, files.fingerprint(folder))


def _lay_out_level(context: Context, user: str, body: Json, folder: Path) -> tuple[list[str], bool]:
    tokens, failed = [], False
    for entry in objects(body, "files"):
        token = text(entry, "token")
        file, path = blobs.take(context, user, token)
        tokens.append(token)
        try:
            _place(path, file, folder)
        except (files.UnsafeName, zipfile.BadZipFile, tarfile.TarError, EOFError, OSError):
            failed = True
    for entry in objects(body, "directories"):
        inner = _directory(folder, text(entry, "name"))
        more, broken = _lay_out_level(context, user, entry, inner)
        tokens, failed = tokens + more, failed or broken
    return tokens, failed


def _directory(folder: Path, given: str) -> Path:
    try:
        path = files.safe_join(folder, given)
        path.mkdir(parents=True, exist_ok=True)
    except (files.UnsafeName, FileExistsError, NotADirectoryError) as error:
        raise ApiError(400, f"{given!r} is no directory name.") from error
    return path


def _place(blob: Path, file: str, folder: Path) -> None:
    if files.is_archive(file):
        files.unpack(blob, file, folder)
    else:
        shutil.copyfile(blob, files.safe_join(folder, file))


def _add_version(
    context: Context, db: sqlite3.Connection, dataset: tuple[int, str, str], upload: Upload, notes: str
) -> None:
    """Record the next version of `dataset` (row id, owner, slug) and move its files into place."""
    identity, owner, slug = dataset
    digest, size = upload.fingerprint
    last = db.execute("SELECT coalesce(max(number), 0) AS n FROM dataset_versions WHERE dataset = ?", (identity,))
    version, now = last.fetchone()["n"] + 1, time.time()
    files.settle(upload.folder, dataset_folder(context.root, owner, slug, version))
    db.execute(
        "INSERT INTO dataset_versions (dataset, number, notes, fingerprint, bytes, failed, created, ready)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (identity, version, notes, digest, size, upload.failed, now, now + context.profile.dataset_seconds),
    )
