"""Models that were published into the server: describe, list, download. Sessions mount them by their five-part name."""

from __future__ import annotations

import re

from kchain.server import files
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.publish import model_folder
from kchain.server.wire import ApiError, Json, denied, number, page, text, timestamp

_PREFIX = "MODEL_FRAMEWORK_"


def _find(context: Context, user: str, body: Json) -> Row:
    owner, slug = text(body, "ownerSlug").lower(), text(body, "modelSlug").lower()
    row = context.db.one("SELECT * FROM models WHERE owner = ? AND slug = ?", owner, slug)
    if row is None or (row["private"] and row["owner"] != user):
        raise denied("models.get")
    return row


def _plain(framework: str) -> str:
    """A framework's name without the enum's prefix, case and punctuation: TENSOR_FLOW_2 is tensorflow2."""
    return re.sub(r"[^a-z0-9]", "", framework.upper().removeprefix(_PREFIX).lower())


def _versions(context: Context, user: str, body: Json) -> tuple[Row, list[Row]]:
    """(model, versions of the variation a request names by framework and instanceSlug, newest first)."""
    model = _find(context, user, body)
    rows = context.db.all("SELECT * FROM model_versions WHERE model = ? ORDER BY number DESC", model["id"])
    framework, variation = _plain(text(body, "framework")), text(body, "instanceSlug").lower()
    found = [row for row in rows if row["variation"] == variation and _plain(row["framework"]) == framework]
    if not found:
        raise denied("models.get")
    return model, found


def _version(context: Context, user: str, body: Json) -> tuple[Row, Row]:
    model, rows = _versions(context, user, body)
    wanted = number(body, "versionNumber") or rows[0]["number"]
    for row in rows:
        if row["number"] == wanted:
            return model, row
    raise ApiError(404, "Model version not found.")


def get(context: Context, user: str, body: Json) -> Json:
    """GetModel."""
    model = _find(context, user, body)
    return {
        "id": model["id"],
        "ref": f"{model['owner']}/{model['slug']}",
        "title": model["title"],
        "author": model["owner"],
        "slug": model["slug"],
        "isPrivate": bool(model["private"]),
        "publishTime": timestamp(model["created"]),
    }


def get_instance(context: Context, user: str, body: Json) -> Json:
    """GetModelInstance: its newest version."""
    model, rows = _versions(context, user, body)
    return {
        "id": rows[0]["id"],
        "slug": rows[0]["variation"],
        "framework": text(body, "framework"),
        "versionId": rows[0]["id"],
        "versionNumber": rows[0]["number"],
        "totalUncompressedBytes": rows[0]["bytes"],
        "url": context.page(f"models/{model['owner']}/{model['slug']}"),
    }


def list_versions(context: Context, user: str, body: Json) -> Json:
    """ListModelInstanceVersions."""
    model, rows = _versions(context, user, body)
    shown, token, _ = page(rows, body)
    listed = [
        {
            "id": row["id"],
            "versionNumber": row["number"],
            "variationSlug": row["variation"],
            "modelTitle": model["title"],
            "isPrivate": bool(model["private"]),
        }
        for row in shown
    ]
    return {"versionList": {"versions": listed}, "nextPageToken": token}


def list_files(context: Context, user: str, body: Json) -> Json:
    """ListModelInstanceVersionFiles."""
    model, row = _version(context, user, body)
    parts = (model["owner"], model["slug"], row["framework"], row["variation"])
    shown, token, _ = page(list(files.walk(model_folder(context.root, *parts, row["number"]))), body)
    listed = [
        {"name": name, "size": path.stat().st_size, "creationDate": timestamp(row["created"])} for name, path in shown
    ]
    return {"files": listed, "nextPageToken": token}


def download(context: Context, user: str, body: Json) -> str:
    """DownloadModelInstanceVersion of one file (`path`); whole models are mounted, not downloaded."""
    model, row = _version(context, user, body)
    path = text(body, "path")
    if not path:
        raise ApiError(400, "Name one file of the model: this server does not pack whole models.")
    where = f"{model['owner']}/{model['slug']}/{row['framework']}/{row['variation']}/{row['number']}"
    return context.signed(f"model/{where}/{path}")
