"""Models: made, told about, listed, downloaded, deleted; each with variations, each of those with versions of files.

Sessions mount a version by its five-part name, owner/model/framework/variation/number.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Sequence

from kchain.server import blobs, things
from kchain.server.blobs import laid_out
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.model_requests import (
    CreateModel,
    CreateVariation,
    CreateVariationVersion,
    ListInstances,
    ListModels,
    ModelRef,
    ModelTexts,
    ModelVersionRef,
    UpdateModel,
    UpdateVariation,
    VariationRef,
    VariationTexts,
    is_known,
    on_the_wire,
    spelled,
)
from kchain.server.things import MODEL, Content, word
from kchain.server.wire import ApiError, Json, denied, name, page, timestamp

# As Kaggle's client checks slugs before it sends them.
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def _variation(context: Context, user: str, asked: VariationRef, to: str = "get") -> tuple[Row, list[Row]]:
    """(model, versions of the variation that a request names, newest first).

    Raises:
        ApiError: 403, when there is none.
    """
    model = things.find(context, user, MODEL, asked, to)
    wanted = (spelled(asked.framework), asked.instance_slug.lower())
    rows = things.versions(context.db, MODEL, model["id"])
    found = [row for row in rows if (spelled(row["framework"]), row["variation"]) == wanted]
    if not found:
        raise denied(f"models.{to}")
    return model, found


def _version(context: Context, user: str, asked: ModelVersionRef, to: str = "get") -> tuple[Row, Row]:
    """(model, the version that a request names; without a number the newest).

    Raises:
        ApiError: 403 or 404, when there is none.
    """
    model, rows = _variation(context, user, asked, to)
    for row in rows:
        if asked.version_number in (0, row["number"]):
            return model, row
    raise ApiError(404, "Model version not found.")


def get(context: Context, user: str, asked: ModelRef) -> Json:
    return _described(context, things.find(context, user, MODEL, asked))


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


def listing(context: Context, user: str, asked: ListModels) -> Json:
    """ListModels: one's own, or what everybody may read; filters owner and search, newest first."""
    shown = things.visible(context, user, MODEL, asked.owner.lower(), asked)
    found, token, _ = page(shown, asked)
    models = [_described(context, row) for row in found]
    return {"models": models, "nextPageToken": token, "totalResults": len(shown)}


def _by_variation(context: Context, model: Row) -> list[list[Row]]:
    """The versions of each variation, newest first."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in things.versions(context.db, MODEL, model["id"]):
        found.setdefault((row["framework"], row["variation"]), []).append(row)
    return list(found.values())


def get_instance(context: Context, user: str, asked: VariationRef) -> Json:
    """GetModelInstance: with its newest version."""
    return _instance(context, *_variation(context, user, asked))


def _instance(context: Context, model: Row, rows: Sequence[Row]) -> Json:
    newest = rows[0]
    details = context.db.one(
        "SELECT details FROM model_instances WHERE model = ? AND framework = ? AND variation = ?",
        *(model["id"], newest["framework"], newest["variation"]),
    )
    told = json.loads(details["details"]) if details is not None else {}
    return {
        **_base(told.pop("baseModelInstance", "")),
        **told,
        "id": rows[-1]["id"],
        "slug": newest["variation"],
        "framework": on_the_wire(newest["framework"]),
        "versionId": newest["id"],
        "versionNumber": newest["number"],
        "totalUncompressedBytes": newest["bytes"],
        "url": context.page(f"models/{'/'.join(MODEL.parts(model, newest)[:-1])}"),
    }


def _base(ref: str) -> Json:
    """What GetModelInstance tells of "owner/model/framework/variation"."""
    parts = ref.split("/")
    if len(parts) != 4:
        return {}
    owner, model, framework, variation = parts
    base = {"owner": {"slug": owner}, "modelSlug": model, "framework": on_the_wire(framework)}
    return {"baseModelInstanceInformation": {**base, "instanceSlug": variation}}


def list_instances(context: Context, user: str, asked: ListInstances) -> Json:
    """ListModelInstances: each with its newest version, whose notes and processing state only this call tells."""
    model = things.find(context, user, MODEL, asked)
    shown, token, _ = page(_by_variation(context, model), asked)
    listed = []
    for rows in shown:
        described = _instance(context, model, rows)
        if licence := described.pop("licenseName", ""):
            described["license"] = {"name": licence}
        described |= {"ownerSlug": model["owner"], "modelSlug": model["slug"], "modelId": model["id"]}
        listed.append(described | {"versionNotes": rows[0]["notes"], "status": word(rows[0])})
    return {"instances": listed, "nextPageToken": token}


def list_versions(context: Context, user: str, asked: ModelVersionRef) -> Json:
    model, rows = _variation(context, user, asked)
    shown, token, _ = page(rows, asked)
    listed = [
        {
            "id": row["id"],
            "versionNumber": row["number"],
            "variationSlug": row["variation"],
            "framework": on_the_wire(row["framework"]),
            "modelTitle": model["title"],
            "isPrivate": bool(model["private"]),
            "ownerSlug": model["owner"],
            "modelSlug": model["slug"],
        }
        for row in shown
    ]
    return {"versionList": {"versions": listed}, "nextPageToken": token}


def list_files(context: Context, user: str, asked: ModelVersionRef) -> Json:
    model, row = _version(context, user, asked)
    shown, token, _ = page(things.files_of(context, MODEL, model, row), asked)
    created = timestamp(row["created"])
    listed = [{"name": name, "size": path.stat().st_size, "creationDate": created} for name, path in shown]
    return {"files": listed, "nextPageToken": token}


def download(context: Context, user: str, asked: ModelVersionRef) -> str:
    """DownloadModelInstanceVersion: the signed address of one file (`path`), or of a tar.gz of all of them.

    Raises:
        ApiError: 404, for a version that is not READY, or has no such file.
    """
    model, row = _version(context, user, asked)
    if word(row) != "READY":
        raise ApiError(404, "Model version not found.")
    return things.address(context, MODEL, model, row, asked.path)


def delete(context: Context, user: str, asked: ModelRef) -> Json:
    """DeleteModel, with all its variations."""
    model = things.find(context, user, MODEL, asked, "delete")
    gone = things.versions(context.db, MODEL, model["id"])
    with context.db.write() as db:
        db.execute("DELETE FROM models WHERE id = ?", (model["id"],))
    things.remove(context, MODEL, model, gone)
    return {"error": ""}


def delete_instance(context: Context, user: str, asked: VariationRef) -> Json:
    """DeleteModelInstance, with all its versions."""
    return _delete_versions(context, *_variation(context, user, asked, "delete"))


def delete_version(context: Context, user: str, asked: ModelVersionRef) -> Json:
    """DeleteModelInstanceVersion; with the last one the variation goes."""
    model, row = _version(context, user, asked, "delete")
    return _delete_versions(context, model, [row])


def _delete_versions(context: Context, model: Row, gone: Sequence[Row]) -> Json:
    with context.db.write() as db:
        db.executemany("DELETE FROM model_versions WHERE id = ?", [(row["id"],) for row in gone])
        db.execute(
            "DELETE FROM model_instances WHERE model = ? AND NOT EXISTS (SELECT 1 FROM model_versions AS v WHERE"
            " v.model = model_instances.model AND v.framework = model_instances.framework"
            " AND v.variation = model_instances.variation)",
            (model["id"],),
        )
    things.remove(context, MODEL, model, gone)
    return {"error": ""}


def create(context: Context, user: str, asked: CreateModel) -> Json:
    """CreateModel: a model without variations."""
    owner, slug = name(asked.owner_slug or user, "owner"), asked.slug
    if owner != user:
        raise denied("models.create")
    if not _is_slug(slug):
        return _refused(400, f"{slug!r} is not a valid model slug.")
    if not asked.title:
        return _refused(400, "A model needs a title.")
    details = asked.model_dump_json(by_alias=True, include=set(ModelTexts.model_fields))
    try:
        with context.db.write() as db:
            made = db.execute(
                "INSERT INTO models (owner, slug, title, private, created, details) VALUES (?, ?, ?, ?, ?, ?)",
                (owner, slug, asked.title, asked.is_private is not False, time.time(), details),
            )
    except sqlite3.IntegrityError:
        return _refused(409, f"The model {owner}/{slug} already exists.")
    return _made(context, int(made.lastrowid or 0), owner, slug)


def create_instance(context: Context, user: str, asked: CreateVariation) -> Json:
    """CreateModelInstance: a variation, with its first version."""
    model, given = things.find(context, user, MODEL, asked, "update"), asked.body
    framework, variation = given.framework, given.instance_slug
    if not is_known(framework):
        return _refused(400, f"{framework!r} is not a valid framework.")
    if not _is_slug(variation):
        return _refused(400, f"{variation!r} is not a valid variation slug.")
    line = (model["id"], spelled(framework), variation)
    with laid_out(context, user, given, "model") as upload, context.db.write() as db:
        if things.versions(context.db, MODEL, *line):
            return _refused(409, f"The variation {variation} already exists.")
        details = given.model_dump_json(by_alias=True, include=set(VariationTexts.model_fields))
        db.execute("INSERT INTO model_instances VALUES (?, ?, ?, ?)", (*line, details))
        made = _add_version(context, db, model, line, upload, "")
    blobs.discard(context, upload.tokens)
    return _made(context, made["id"], *MODEL.parts(model, made))


def create_version(context: Context, user: str, asked: CreateVariationVersion) -> Json:
    model, rows = _variation(context, user, asked, "update")
    line = (model["id"], rows[0]["framework"], rows[0]["variation"])
    with laid_out(context, user, asked.body, "model") as upload, context.db.write() as db:
        made = _add_version(context, db, model, line, upload, asked.body.version_notes)
    blobs.discard(context, upload.tokens)
    return _made(context, made["id"], *MODEL.parts(model, made))


def _add_version(
    context: Context, db: sqlite3.Connection, model: Row, line: tuple[int, str, str], upload: Content, notes: str
) -> Row:
    ready = time.time() + context.profile.dataset_seconds
    return things.add_version(db, MODEL, context.root, model, line, upload, notes=notes, ready=ready)


def update(context: Context, user: str, asked: UpdateModel) -> Json:
    """UpdateModel: the fields that `updateMask` names; this is also how a model becomes public."""
    model = things.find(context, user, MODEL, asked, "update")
    changed, texts = asked.changes(UpdateModel), asked.changes(ModelTexts)
    title, private = changed.get("title", model["title"]), changed.get("isPrivate", model["private"])
    if not title:
        return {"id": 0, "error": "A model needs a title."}
    with context.db.write() as db:
        db.execute(
            "UPDATE models SET title = ?, private = ?, details = json_patch(details, ?) WHERE id = ?",
            (title, private, json.dumps(texts), model["id"]),
        )
    return _made(context, model["id"], model["owner"], model["slug"])


def update_instance(context: Context, user: str, asked: UpdateVariation) -> Json:
    """UpdateModelInstance: the fields that `updateMask` names."""
    model, rows = _variation(context, user, asked, "update")
    key = (model["id"], rows[0]["framework"], rows[0]["variation"])
    with context.db.write() as db:
        db.execute("INSERT OR IGNORE INTO model_instances VALUES (?, ?, ?, '{}')", key)
        db.execute(
            "UPDATE model_instances SET details = json_patch(details, ?)"
            " WHERE model = ? AND framework = ? AND variation = ?",
            (json.dumps(asked.changes(VariationTexts)), *key),
        )
    return _made(context, rows[-1]["id"], *MODEL.parts(model, rows[0])[:-1])


def _is_slug(value: str) -> bool:
    return _SLUG.fullmatch(value) is not None and name(value, "slug") == value


def _made(context: Context, identity: int, *ref: str) -> Json:
    """The answer to what was done to a model, a variation or a version, which `ref` names."""
    handle = "/".join(ref)
    return {"id": identity, "ref": handle, "url": context.page(f"models/{handle}"), "error": ""}


def _refused(code: int, words: str) -> Json:
    return {"id": 0, "error": words, "errorCode": code}
