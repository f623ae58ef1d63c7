"""Data sets: made of uploaded files, described, listed, downloaded, deleted."""

from __future__ import annotations

import sqlite3
import time

from pydantic import Field

from kchain.server import blobs, things
from kchain.server.blobs import Files, laid_out
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.things import DATASET, Content, Search, ThingRef, word
from kchain.server.wire import (
    ApiError,
    Flag,
    Json,
    Number,
    Paging,
    Request,
    Text,
    denied,
    name,
    page,
    slug_of,
    timestamp,
)

SLUG_LENGTH = (6, 50)  # of data set titles and slugs


class DatasetRef(ThingRef):
    slug: Text = Field("", alias="datasetSlug")


class DatasetVersionRef(DatasetRef, Paging):
    """What names a version, and a file or a page of its files."""

    dataset_version_number: Number = 0
    file_name: Text = ""


class ListDatasets(Search):
    """ListDatasets: `group` ends in _MY for one's own."""

    group: Text = ""
    user: Text = ""


class CreateDataset(Files):
    owner_slug: Text = ""
    slug: Text = ""
    title: Text = ""
    subtitle: Text = ""
    description: Text = ""
    license_name: Text = ""
    is_private: Flag = False


class DatasetVersionBody(Files):
    version_notes: Text = ""
    subtitle: Text = ""
    description: Text = ""
    delete_old_versions: Flag = False


class CreateDatasetVersion(DatasetRef):
    body: DatasetVersionBody = DatasetVersionBody()


class CreateDatasetVersionById(Request):
    id: Number = 0
    body: DatasetVersionBody = DatasetVersionBody()


class License(Request):
    name: Text = ""


class Settings(Request):
    title: Text = ""
    subtitle: Text = ""
    description: Text = ""
    licenses: list[License] = []
    is_private: Flag = False


class UpdateMetadata(DatasetRef):
    settings: Settings = Settings()


def status(context: Context, user: str, asked: DatasetRef) -> Json:
    """GetDatasetStatus: of the newest version."""
    return {"status": word(_versions(context, things.find(context, user, DATASET, asked))[0])}


def get(context: Context, user: str, asked: DatasetRef) -> Json:
    return _described(context, things.find(context, user, DATASET, asked))


def _versions(context: Context, dataset: Row) -> list[Row]:
    return things.versions(context.db, DATASET, dataset["id"])


def _described(context: Context, dataset: Row) -> Json:
    every, ref = _versions(context, dataset), f"{dataset['owner']}/{dataset['slug']}"
    told = [
        {
            "versionNumber": version["number"],
            "creationDate": timestamp(version["created"]),
            "versionNotes": version["notes"],
            "status": word(version),
        }
        for version in every
    ]
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
        "totalBytes": every[0]["bytes"],
        "lastUpdated": timestamp(every[0]["created"]),
        "currentVersionNumber": every[0]["number"],
        "versions": told,
    }


def metadata(context: Context, user: str, asked: DatasetRef) -> Json:
    dataset = things.find(context, user, DATASET, asked)
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


def listing(context: Context, user: str, asked: ListDatasets) -> Json:
    """ListDatasets: one's own, or what everybody may read; filters user and search, newest first."""
    owner = user if asked.group.endswith("_MY") else asked.user.lower()
    found, token, _ = page(things.visible(context, user, DATASET, owner, asked), asked)
    return {"datasets": [_described(context, row) for row in found], "nextPageToken": token}


def _readable_version(context: Context, dataset: Row, wanted: int) -> Row:
    """The version of a number; the newest READY one for 0.

    Raises:
        ApiError: 404, when there is no such version or it is not READY.
    """
    for version in _versions(context, dataset):
        if wanted in (0, version["number"]) and word(version) == "READY":
            return version
    raise ApiError(404, "Dataset version not found.")


def list_files(context: Context, user: str, asked: DatasetVersionRef) -> Json:
    dataset = things.find(context, user, DATASET, asked)
    version = _readable_version(context, dataset, asked.dataset_version_number)
    shown, token, _ = page(things.files_of(context, DATASET, dataset, version), asked)
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


def download(context: Context, user: str, asked: DatasetVersionRef) -> str:
    """DownloadDataset: the signed address of one file, or of a zip of all of them."""
    dataset = things.find(context, user, DATASET, asked)
    version = _readable_version(context, dataset, asked.dataset_version_number)
    return things.address(context, DATASET, dataset, version, asked.file_name)


def delete(context: Context, user: str, asked: DatasetRef) -> Json:
    dataset = things.find(context, user, DATASET, asked, "delete")
    gone = _versions(context, dataset)
    with context.db.write() as db:
        db.execute("DELETE FROM datasets WHERE id = ?", (dataset["id"],))
    things.remove(context, DATASET, dataset, gone)
    return {}


def create(context: Context, user: str, asked: CreateDataset) -> Json:
    """CreateDataset. A title or slug that is bad or in use is answered with status "error", not with an HTTP status."""
    title = asked.title
    slug = name(asked.slug or slug_of(title), "slug")
    owner = name(asked.owner_slug or user, "owner")
    if owner != user:
        raise denied("datasets.create")
    taken = context.db.one("SELECT 1 FROM datasets WHERE owner = ? AND (slug = ? OR title = ?)", owner, slug, title)
    if complaint := _length(title=title, slug=slug) or (_in_use(title) if taken is not None else ""):
        return {"status": "error", "error": complaint}
    try:
        with laid_out(context, user, asked, "dataset") as upload, context.db.write() as db:
            made = db.execute(
                "INSERT INTO datasets (owner, slug, title, subtitle, description, license, private, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(owner, slug, title, asked.subtitle, asked.description),
                    *(asked.license_name, asked.is_private, time.time()),
                ),
            )
            dataset = db.execute("SELECT * FROM datasets WHERE id = ?", (made.lastrowid,)).fetchone()
            _add_version(context, db, dataset, upload, "Initial release")
    except sqlite3.IntegrityError:
        return {"status": "error", "error": _in_use(title)}
    blobs.discard(context, upload.tokens)
    return _created(context, dataset)


def _length(**given: str) -> str:
    """What is wrong with the length of a title or slug; "" where nothing is."""
    shortest, longest = SLUG_LENGTH
    for what, value in given.items():
        if not shortest <= len(value) <= longest:
            return f"The dataset {what} must be between {shortest} and {longest} characters."
    return ""


def _in_use(title: str) -> str:
    return f'The requested title "{title}" is already in use by a dataset. Please choose another title.'


def _add_version(context: Context, db: sqlite3.Connection, dataset: Row, upload: Content, notes: str) -> None:
    ready = time.time() + context.profile.dataset_seconds
    things.add_version(db, DATASET, context.root, dataset, (dataset["id"],), upload, notes=notes, ready=ready)


def _created(context: Context, dataset: Row) -> Json:
    ref = f"{dataset['owner']}/{dataset['slug']}"
    return {"ref": ref, "url": context.page(f"datasets/{ref}"), "status": "Ok", "error": "", "invalidTags": []}


def create_version(context: Context, user: str, asked: CreateDatasetVersion) -> Json:
    """CreateDatasetVersion: 403 for somebody else's data set, and while the first version is being processed."""
    dataset = things.find(context, user, DATASET, asked, "update")
    earlier = _versions(context, dataset)
    if len(earlier) == 1 and word(earlier[0]) not in ("READY", "FAILED"):
        raise denied("datasets.update")
    given = asked.body
    with laid_out(context, user, given, "dataset") as upload, context.db.write() as db:
        _add_version(context, db, dataset, upload, given.version_notes)
        for column, value in (("subtitle", given.subtitle), ("description", given.description)):
            if value:
                db.execute(f"UPDATE datasets SET {column} = ? WHERE id = ?", (value, dataset["id"]))
        if given.delete_old_versions:
            db.executemany("DELETE FROM dataset_versions WHERE id = ?", [(row["id"],) for row in earlier])
    if given.delete_old_versions:
        things.remove(context, DATASET, dataset, earlier)
    blobs.discard(context, upload.tokens)
    return _created(context, dataset)


def create_version_by_id(context: Context, user: str, asked: CreateDatasetVersionById) -> Json:
    row = context.db.one("SELECT * FROM datasets WHERE id = ?", asked.id)
    if row is None:
        raise denied("datasets.update")
    return create_version(
        context, user, CreateDatasetVersion(owner_slug=row["owner"], slug=row["slug"], body=asked.body)
    )


def update_metadata(context: Context, user: str, asked: UpdateMetadata) -> Json:
    """UpdateDatasetMetadata: what the server knows of a data set is replaced; refusals come as `errors`.

    Kaggle's client sends every setting, an absent isPrivate as false. Keywords, collaborators, descriptions of files
    and pictures have no meaning here.
    """
    dataset, told = things.find(context, user, DATASET, asked, "update"), asked.settings
    if complaint := _length(title=told.title):
        return {"errors": [complaint]}
    licence = told.licenses[0].name if told.licenses else dataset["license"]
    with context.db.write() as db:
        taken = "SELECT 1 FROM datasets WHERE owner = ? AND title = ? AND id != ?"
        if db.execute(taken, (user, told.title, dataset["id"])).fetchone() is not None:
            return {"errors": [_in_use(told.title)]}
        db.execute(
            "UPDATE datasets SET title = ?, subtitle = ?, description = ?, license = ?, private = ? WHERE id = ?",
            (told.title, told.subtitle, told.description, licence, told.is_private, dataset["id"]),
        )
    return {"errors": []}
