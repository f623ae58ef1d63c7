"""Data sets: find, describe, list, download, delete. How they come to be: dataset_uploads.py and publish.py."""

from __future__ import annotations

import sqlite3
import time

from kchain.server import blobs, datasets, publish, trees
from kchain.server.blobs import Upload, laid_out
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.publish import dataset_folder
from kchain.server.sources import ready_version
from kchain.server.wire import ApiError, Json, denied, name, number, objects, page, slug_of, text, timestamp

# What a version of a data set or model goes through before READY, in equal parts of the profile's dataset_seconds.
STAGES = ("NOT_YET_PERSISTED", "BLOBS_RECEIVED", "BLOBS_DECOMPRESSED", "BLOBS_COPIED_TO_SDS")


def find(context: Context, user: str, body: Json) -> Row:
    """The data set that a request names by ownerSlug and datasetSlug.

    Raises:
        ApiError: 403, for one that is not there or not this user's to read: Kaggle does not tell them apart.
    """
    owner, slug = text(body, "ownerSlug").lower(), text(body, "datasetSlug").lower()
    row = context.db.one("SELECT * FROM datasets WHERE owner = ? AND slug = ?", owner, slug)
    if row is None or (row["private"] and row["owner"] != user):
        raise denied("datasets.get")
    return row


def versions(context: Context, dataset: Row) -> list[Row]:
    """Every version, newest first."""
    return context.db.all("SELECT * FROM dataset_versions WHERE dataset = ? ORDER BY number DESC", dataset["id"])


def word(version: Row) -> str:
    """Kaggle's word for where a version is on its way to READY."""
    if version["failed"]:
        return "FAILED"
    now, span = time.time(), version["ready"] - version["created"]
    if now >= version["ready"] or span <= 0:
        return "READY"
    return STAGES[int(max(now - version["created"], 0.0) / span * len(STAGES))]


def status(context: Context, user: str, body: Json) -> Json:
    """GetDatasetStatus: of the newest version."""
    return {"status": word(versions(context, find(context, user, body))[0])}


def get(context: Context, user: str, body: Json) -> Json:
    """GetDataset."""
    return _described(context, find(context, user, body))


def _described(context: Context, dataset: Row) -> Json:
    every, ref = versions(context, dataset), f"{dataset['owner']}/{dataset['slug']}"
    latest = every[0]
    return {
        "id": dataset["id"],
        "ref": ref,
        "url": context.page(f"datasets/{ref}"),
        "title": dataset["title"],
        "subtitle": dataset["subtitle"],
        "description": dataset["description"],
        "licenseName": dataset["license"],
        "ownerRef": dataset["owner"],
        "ownerName": dataset["owner"],
        "creatorName": dataset["owner"],
        "isPrivate": bool(dataset["private"]),
        "totalBytes": latest["bytes"],
        "lastUpdated": timestamp(latest["created"]),
        "currentVersionNumber": latest["number"],
        "versions": [_version(version) for version in every],
    }


def _version(version: Row) -> Json:
    return {
        "versionNumber": version["number"],
        "creationDate": timestamp(version["created"]),
        "versionNotes": version["notes"],
        "status": word(version),
    }


def metadata(context: Context, user: str, body: Json) -> Json:
    """GetDatasetMetadata."""
    dataset = find(context, user, body)
    return {
        "info": {
            "datasetId": dataset["id"],
            "datasetSlug": dataset["slug"],
            "ownerUser": dataset["owner"],
            "title": dataset["title"],
            "subtitle": dataset["subtitle"],
            "description": dataset["description"],
            "isPrivate": bool(dataset["private"]),
            "licenses": [{"name": dataset["license"]}],
        }
    }


def listing(context: Context, user: str, body: Json) -> Json:
    """ListDatasets: one's own, or what everybody may read; filters user and search, newest first."""
    mine = text(body, "group").endswith("_MY")
    owner = user if mine else text(body, "user").lower()
    search = text(body, "search").lower()
    shown = [
        row
        for row in context.db.all("SELECT * FROM datasets ORDER BY created DESC")
        if (row["owner"] == user or not row["private"])
        and owner in ("", row["owner"])
        and search in f"{row['slug']} {row['title']}".lower()
    ]
    found, token, _ = page(shown, body)
    return {"datasets": [_described(context, row) for row in found], "nextPageToken": token}


def _readable_version(context: Context, dataset: Row, body: Json) -> Row:
    """The version a request asks for; without one the newest READY one.

    Raises:
        ApiError: 404, when there is no such version or it is not READY.
    """
    wanted = number(body, "datasetVersionNumber")
    for version in versions(context, dataset):
        if version["number"] == wanted and word(version) == "READY":
            return version
    ready = ready_version(context, dataset["id"]) if not wanted else None
    if ready is None:
        raise ApiError(404, "Dataset version not found.")
    return ready


def list_files(context: Context, user: str, body: Json) -> Json:
    """ListDatasetFiles."""
    dataset = find(context, user, body)
    version = _readable_version(context, dataset, body)
    folder = dataset_folder(context.root, dataset["owner"], dataset["slug"], version["number"])
    shown, token, _ = page(list(trees.walk(folder)), body)
    listed = [
        {
            "ref": f"{dataset['owner']}/{dataset['slug']}/{name}",
            "name": name,
            "creationDate": timestamp(version["created"]),
            "totalBytes": path.stat().st_size,
        }
        for name, path in shown
    ]
    return {"datasetFiles": listed, "nextPageToken": token}


def download(context: Context, user: str, body: Json) -> str:
    """DownloadDataset: the signed address of one file, or of a zip of all of them."""
    dataset = find(context, user, body)
    number = _readable_version(context, dataset, body)["number"]
    file, where = text(body, "fileName"), f"{dataset['owner']}/{dataset['slug']}/{number}"
    if not file:
        return context.signed(f"dataset-zip/{where}/{dataset['slug']}.zip")
    if file not in dict(trees.walk(dataset_folder(context.root, dataset["owner"], dataset["slug"], number))):
        raise ApiError(404, f"There is no file {file!r}.")
    return context.signed(f"dataset/{where}/{file}")


def delete(context: Context, user: str, body: Json) -> Json:
    """DeleteDataset: what running sessions mounted of it stays theirs."""
    owner, slug = text(body, "ownerSlug").lower(), text(body, "datasetSlug").lower()
    dataset = context.db.one("SELECT * FROM datasets WHERE owner = ? AND slug = ?", owner, slug)
    if dataset is None or owner != user:
        raise denied("datasets.delete")
    folders = [dataset_folder(context.root, owner, slug, version["number"]) for version in versions(context, dataset)]
    with context.db.write() as db:
        db.execute("DELETE FROM datasets WHERE id = ?", (dataset["id"],))
    for folder in folders:
        publish.forget(context, folder)
    return {}


# CreateDataset and CreateDatasetVersion: uploaded blobs become the files of a version; UpdateDatasetMetadata.

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
            publish.forget(context, dataset_folder(context.root, owner, slug, row["number"]))
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
    trees.settle(upload.folder, dataset_folder(context.root, owner, slug, version))
    db.execute(
        "INSERT INTO dataset_versions (dataset, number, notes, fingerprint, bytes, failed, created, ready)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (identity, version, notes, digest, size, upload.failed, now, now + context.profile.dataset_seconds),
    )
