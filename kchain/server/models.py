"""Models: describe, list, download, delete. How they come to be: model_uploads.py and publish.py.

Sessions mount a version by its five-part name, owner/model/framework/variation/number.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from kchain.server import archives, files
from kchain.server.context import Context
from kchain.server.datasets import word
from kchain.server.db import Row
from kchain.server.frameworks import on_the_wire, spelled
from kchain.server.publish import model_folder
from kchain.server.wire import ApiError, Json, denied, number, page, text, timestamp


def find(context: Context, user: str, body: Json) -> Row:
    """The model that a request names by ownerSlug and modelSlug.

    Raises:
        ApiError: 403, for one that is not there or not this user's to read: Kaggle does not tell them apart.
    """
    owner, slug = text(body, "ownerSlug").lower(), text(body, "modelSlug").lower()
    row = context.db.one("SELECT * FROM models WHERE owner = ? AND slug = ?", owner, slug)
    if row is None or (row["private"] and row["owner"] != user):
        raise denied("models.get")
    return row


def versions(context: Context, user: str, body: Json) -> tuple[Row, list[Row]]:
    """(model, versions of the variation a request names by framework and instanceSlug, newest first).

    Raises:
        ApiError: 403, when there is none.
    """
    model = find(context, user, body)
    rows = context.db.all("SELECT * FROM model_versions WHERE model = ? ORDER BY number DESC", model["id"])
    framework, variation = spelled(text(body, "framework")), text(body, "instanceSlug").lower()
    found = [row for row in rows if row["variation"] == variation and spelled(row["framework"]) == framework]
    if not found:
        raise denied("models.get")
    return model, found


def version(context: Context, user: str, body: Json) -> tuple[Row, Row]:
    """(model, the version a request names; without a number the newest).

    Raises:
        ApiError: 403 or 404, when there is none.
    """
    model, rows = versions(context, user, body)
    wanted = number(body, "versionNumber") or rows[0]["number"]
    for row in rows:
        if row["number"] == wanted:
            return model, row
    raise ApiError(404, "Model version not found.")


def get(context: Context, user: str, body: Json) -> Json:
    """GetModel."""
    return _described(context, find(context, user, body))


def _described(context: Context, model: Row) -> Json:
    ref = f"{model['owner']}/{model['slug']}"
    return {
        **json.loads(model["details"]),
        "id": model["id"],
        "ref": ref,
        "title": model["title"],
        "author": model["owner"],
        "slug": model["slug"],
        "isPrivate": bool(model["private"]),
        "publishTime": timestamp(model["created"]),
        "updateTime": timestamp(model["created"]),
        "url": context.page(f"models/{ref}"),
        "instances": [_instance(context, model, rows) for rows in _by_variation(context, model)],
    }


def listing(context: Context, user: str, body: Json) -> Json:
    """ListModels: one's own, or what everybody may read; filters owner and search, newest first."""
    owner, search = text(body, "owner").lower(), text(body, "search").lower()
    shown = [
        row
        for row in context.db.all("SELECT * FROM models ORDER BY created DESC")
        if (row["owner"] == user or not row["private"])
        and owner in ("", row["owner"])
        and search in f"{row['slug']} {row['title']}".lower()
    ]
    found, token, _ = page(shown, body)
    return {
        "models": [_described(context, row) for row in found],
        "nextPageToken": token,
        "totalResults": len(shown),
    }


def _by_variation(context: Context, model: Row) -> list[list[Row]]:
    """The versions of each variation, newest first."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in context.db.all("SELECT * FROM model_versions WHERE model = ? ORDER BY number DESC", model["id"]):
        found.setdefault((row["framework"], row["variation"]), []).append(row)
    return list(found.values())


def get_instance(context: Context, user: str, body: Json) -> Json:
    """GetModelInstance: with its newest version."""
    model, rows = versions(context, user, body)
    return _instance(context, model, rows)


def _instance(context: Context, model: Row, rows: Sequence[Row]) -> Json:
    newest = rows[0]
    ref = f"{model['owner']}/{model['slug']}/{newest['framework']}/{newest['variation']}"
    details = context.db.one(
        "SELECT details FROM model_instances WHERE model = ? AND framework = ? AND variation = ?",
        *(model["id"], newest["framework"], newest["variation"]),
    )
    return {
        **(json.loads(details["details"]) if details is not None else {}),
        "id": rows[-1]["id"],
        "slug": newest["variation"],
        "framework": on_the_wire(newest["framework"]) or "MODEL_FRAMEWORK_OTHER",
        "versionId": newest["id"],
        "versionNumber": newest["number"],
        "totalUncompressedBytes": newest["bytes"],
        "url": context.page(f"models/{ref}"),
    }


def list_instances(context: Context, user: str, body: Json) -> Json:
    """ListModelInstances: each with its newest version, whose notes and processing state only this call tells."""
    model = find(context, user, body)
    shown, token, _ = page(_by_variation(context, model), body)
    listed = []
    for rows in shown:
        described = _instance(context, model, rows)
        licence = described.pop("licenseName", "")
        more = {"license": {"name": licence}} if licence else {}
        listed.append(
            {
                **described,
                **more,
                "ownerSlug": model["owner"],
                "modelSlug": model["slug"],
                "modelId": model["id"],
                "versionNotes": rows[0]["notes"],
                "status": word(rows[0]),
            }
        )
    return {"instances": listed, "nextPageToken": token}


def list_versions(context: Context, user: str, body: Json) -> Json:
    """ListModelInstanceVersions."""
    model, rows = versions(context, user, body)
    shown, token, _ = page(rows, body)
    listed = [
        {
            "id": row["id"],
            "versionNumber": row["number"],
            "variationSlug": row["variation"],
            "framework": on_the_wire(row["framework"]) or "MODEL_FRAMEWORK_OTHER",
            "modelTitle": model["title"],
            "isPrivate": bool(model["private"]),
            "ownerSlug": model["owner"],
            "modelSlug": model["slug"],
        }
        for row in shown
    ]
    return {"versionList": {"versions": listed}, "nextPageToken": token}


def list_files(context: Context, user: str, body: Json) -> Json:
    """ListModelInstanceVersionFiles."""
    model, row = version(context, user, body)
    shown, token, _ = page(list(files.walk(folder(context, model, row))), body)
    listed = [
        {"name": name, "size": path.stat().st_size, "creationDate": timestamp(row["created"])} for name, path in shown
    ]
    return {"files": listed, "nextPageToken": token}


def download(context: Context, user: str, body: Json) -> str:
    """DownloadModelInstanceVersion: the signed address of one file (`path`), or of a tar.gz of all of them.

    Raises:
        ApiError: 404, for a version that is not READY, or has no such file.
    """
    model, row = version(context, user, body)
    if word(row) != "READY":
        raise ApiError(404, "Model version not found.")
    where = f"{model['owner']}/{model['slug']}/{row['framework']}/{row['variation']}/{row['number']}"
    path = text(body, "path")
    if not path:
        return context.signed(f"model-tar/{where}/{model['slug']}.tar.gz")
    return context.signed(f"model/{where}/{path}")


def folder(context: Context, model: Row, row: Row) -> Path:
    """Where the files of a version lie."""
    parts = (model["owner"], model["slug"], row["framework"], row["variation"], row["number"])
    return model_folder(context.root, *parts)


def delete(context: Context, user: str, body: Json) -> Json:
    """DeleteModel, with all its variations; what running sessions mounted of it stays theirs."""
    model = _own(context, user, body)
    rows = context.db.all("SELECT * FROM model_versions WHERE model = ?", model["id"])
    with context.db.write() as db:
        db.execute("DELETE FROM models WHERE id = ?", (model["id"],))
    return _forget(context, model, rows)


def delete_instance(context: Context, user: str, body: Json) -> Json:
    """DeleteModelInstance, with all its versions."""
    _own(context, user, body)
    return _delete_versions(context, *versions(context, user, body))


def delete_version(context: Context, user: str, body: Json) -> Json:
    """DeleteModelInstanceVersion; with the last one the variation goes."""
    _own(context, user, body)
    model, row = version(context, user, body)
    return _delete_versions(context, model, [row])


def _own(context: Context, user: str, body: Json) -> Row:
    model = find(context, user, body)
    if model["owner"] != user:
        raise denied("models.delete")
    return model


def _delete_versions(context: Context, model: Row, rows: Sequence[Row]) -> Json:
    with context.db.write() as db:
        db.executemany("DELETE FROM model_versions WHERE id = ?", [(row["id"],) for row in rows])
        db.execute(
            "DELETE FROM model_instances WHERE model = ? AND NOT EXISTS (SELECT 1 FROM model_versions AS v WHERE"
            " v.model = model_instances.model AND v.framework = model_instances.framework"
            " AND v.variation = model_instances.variation)",
            (model["id"],),
        )
    return _forget(context, model, rows)


def _forget(context: Context, model: Row, rows: Sequence[Row]) -> Json:
    for row in rows:
        archives.forget(context, folder(context, model, row))
    return {"error": ""}
