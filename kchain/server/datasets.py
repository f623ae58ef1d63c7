"""Data sets: find, describe, list, download, delete. How they come to be: dataset_uploads.py and publish.py."""

from __future__ import annotations

import time

from kchain.server import archives, files
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.publish import dataset_folder
from kchain.server.sources import ready_version
from kchain.server.wire import ApiError, Json, denied, number, page, text, timestamp

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
    shown, token, _ = page(list(files.walk(folder)), body)
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
    if file not in dict(files.walk(dataset_folder(context.root, dataset["owner"], dataset["slug"], number))):
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
        archives.forget(context, folder)
    return {}
