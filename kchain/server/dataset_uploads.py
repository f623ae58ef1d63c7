"""CreateDataset and CreateDatasetVersion: uploaded blobs become the files of a version; UpdateDatasetMetadata."""

from __future__ import annotations

import sqlite3
import time

from kchain.server import archives, blobs, datasets, files
from kchain.server.context import Context
from kchain.server.layout import Upload, laid_out
from kchain.server.publish import dataset_folder
from kchain.server.wire import ApiError, Json, denied, name, number, objects, slug_of, text

SLUG_LENGTH = (6, 50)  # of data set titles and slugs


def create(context: Context, user: str, body: Json) -> Json:
    """CreateDataset. A title or slug that is bad or in use is answered with status "error", not with an HTTP status."""
    title = text(body, "title")
    slug = name(text(body, "slug") or slug_of(title), "slug")
    owner = name(text(body, "ownerSlug") or user, "owner")
    if owner != user:
        raise denied("datasets.create")
    if complaint := _complaint(context, owner, slug, title):
        return {"status": "error", "error": complaint}
    try:
        with laid_out(context, user, body, "dataset") as upload, context.db.write() as db:
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
    owner, slug = dataset["owner"], dataset["slug"]
    with laid_out(context, user, given, "dataset") as upload, context.db.write() as db:
        _add_version(context, db, (dataset["id"], owner, slug), upload, text(given, "versionNotes"))
        for key in ("subtitle", "description"):
            if value := text(given, key):
                db.execute(f"UPDATE datasets SET {key} = ? WHERE id = ?", (value, dataset["id"]))
        if given.get("deleteOldVersions"):
            db.executemany("DELETE FROM dataset_versions WHERE id = ?", [(row["id"],) for row in earlier])
    if given.get("deleteOldVersions"):
        for row in earlier:
            archives.forget(context, dataset_folder(context.root, owner, slug, row["number"]))
    blobs.discard(context, upload.tokens)
    return _created(context, owner, slug)


def create_version_by_id(context: Context, user: str, body: Json) -> Json:
    """CreateDatasetVersionById."""
    row = context.db.one("SELECT * FROM datasets WHERE id = ?", number(body, "id"))
    if row is None:
        raise denied("datasets.update")
    return create_version(context, user, {**body, "ownerSlug": row["owner"], "datasetSlug": row["slug"]})


def update_metadata(context: Context, user: str, body: Json) -> Json:
    """UpdateDatasetMetadata: what the server knows of a data set is replaced; refusals come as `errors`.

    Kaggle's client sends every setting, an absent isPrivate as false. Keywords, collaborators, descriptions of files
    and pictures have no meaning here.
    """
    dataset = datasets.find(context, user, body)
    if dataset["owner"] != user:
        raise denied("datasets.update")
    settings = body.get("settings") or {}
    if not isinstance(settings, dict):
        raise ApiError(400, "settings must be an object.")
    title = text(settings, "title")
    shortest, longest = SLUG_LENGTH
    if not shortest <= len(title) <= longest:
        return {"errors": [f"The dataset title must be between {shortest} and {longest} characters."]}
    licences = [text(entry, "name") for entry in objects(settings, "licenses")] or [dataset["license"]]
    with context.db.write() as db:
        taken = "SELECT 1 FROM datasets WHERE owner = ? AND title = ? AND id != ?"
        if db.execute(taken, (user, title, dataset["id"])).fetchone() is not None:
            return {"errors": [_in_use(title)]}
        db.execute(
            "UPDATE datasets SET title = ?, subtitle = ?, description = ?, license = ?, private = ? WHERE id = ?",
            (
                *(title, text(settings, "subtitle"), text(settings, "description")),
                *(licences[0], bool(settings.get("isPrivate")), dataset["id"]),
            ),
        )
    return {"errors": []}


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
