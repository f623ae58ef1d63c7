"""Models: describe, list, download, delete. How they come to be: model_uploads.py and publish.py.

Sessions mount a version by its five-part name, owner/model/framework/variation/number.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

from kchain.server import blobs, models, publish, trees
from kchain.server.blobs import Upload, laid_out
from kchain.server.context import Context
from kchain.server.datasets import word
from kchain.server.db import Row
from kchain.server.publish import model_folder
from kchain.server.wire import ApiError, Json, denied, name, number, page, strings, text, timestamp

# Kaggle's model frameworks: their names on the wire, and how a model's handle spells them.

_PREFIX = "MODEL_FRAMEWORK_"
# kagglesdk 0.1.37, models/types/model_enums.py.
_NAMES = (
    "TENSOR_FLOW_1", "TENSOR_FLOW_2", "TF_LITE", "TF_JS", "PY_TORCH", "JAX", "FLAX", "PAX", "MAX_TEXT", "GEMMA_CPP",
    "GGML", "GGUF", "CORAL", "SCIKIT_LEARN", "MXNET", "ONNX", "KERAS", "TRANSFORMERS", "API", "OTHER", "TENSOR_RT_LLM",
    "TRITON", "VLLM",
)  # fmt: skip


def spelled(framework: str) -> str:
    """A framework as it stands in a handle here, without the enum's prefix, case and punctuation: tensorflow2."""
    return re.sub(r"[^a-z0-9]", "", framework.upper().removeprefix(_PREFIX).lower())


_BY_SPELLING = {spelled(name): _PREFIX + name for name in _NAMES}


def on_the_wire(framework: str) -> str | None:
    """The enum's name of a framework in whatever spelling; None for one that Kaggle does not know."""
    return _BY_SPELLING.get(spelled(framework))


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
    told = json.loads(details["details"]) if details is not None else {}
    return {
        **_base(told.pop("baseModelInstance", "")),
        **told,
        "id": rows[-1]["id"],
        "slug": newest["variation"],
        "framework": on_the_wire(newest["framework"]) or "MODEL_FRAMEWORK_OTHER",
        "versionId": newest["id"],
        "versionNumber": newest["number"],
        "totalUncompressedBytes": newest["bytes"],
        "url": context.page(f"models/{ref}"),
    }


def _base(ref: str) -> Json:
    """What GetModelInstance tells of "owner/model/framework/variation"."""
    parts = ref.split("/")
    if len(parts) != 4:
        return {}
    framework = on_the_wire(parts[2]) or "MODEL_FRAMEWORK_OTHER"
    base = {"owner": {"slug": parts[0]}, "modelSlug": parts[1], "framework": framework, "instanceSlug": parts[3]}
    return {"baseModelInstanceInformation": base}


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
    shown, token, _ = page(list(trees.walk(folder(context, model, row))), body)
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
        publish.forget(context, folder(context, model, row))
    return {"error": ""}


# UpdateModel and UpdateModelInstance: what was said of a model or a variation, replaced field by field.

_MODEL_TEXTS = ("subtitle", "description", "provenanceSources")
_VARIATION_TEXTS = (
    "overview",
    "usage",
    "licenseName",
    "baseModelInstance",
    "externalBaseModelUrl",
    "modelInstanceType",
)


def update(context: Context, user: str, body: Json) -> Json:
    """UpdateModel: the fields that `updateMask` names; this is also how a model becomes public."""
    model, fields = _model_updates_own(context, user, body), _fields(body)
    details = json.loads(model["details"]) | {part: text(body, part) for part in _MODEL_TEXTS if part in fields}
    title = text(body, "title") if "title" in fields else model["title"]
    if not title:
        return {"id": 0, "error": "A model needs a title."}
    private = bool(body.get("isPrivate")) if "isPrivate" in fields else model["private"]
    with context.db.write() as db:
        db.execute(
            "UPDATE models SET title = ?, private = ?, details = ? WHERE id = ?",
            (title, private, json.dumps(details), model["id"]),
        )
    return _updated(context, model["id"], f"{model['owner']}/{model['slug']}")


def update_instance(context: Context, user: str, body: Json) -> Json:
    """UpdateModelInstance: the fields that `updateMask` names."""
    _model_updates_own(context, user, body)
    model, rows = models.versions(context, user, body)
    fields, key = _fields(body), (model["id"], rows[0]["framework"], rows[0]["variation"])
    changed: Json = {part: text(body, part) for part in _VARIATION_TEXTS if part in fields}
    if "fineTunable" in fields:
        changed["fineTunable"] = bool(body.get("fineTunable"))
    if "trainingData" in fields:
        changed["trainingData"] = strings(body, "trainingData")
    with context.db.write() as db:
        db.execute("INSERT OR IGNORE INTO model_instances VALUES (?, ?, ?, '{}')", key)
        db.execute(
            "UPDATE model_instances SET details = json_patch(details, ?)"
            " WHERE model = ? AND framework = ? AND variation = ?",
            (json.dumps(changed), *key),
        )
    return _updated(context, rows[-1]["id"], f"{model['owner']}/{model['slug']}/{key[1]}/{key[2]}")


def _model_updates_own(context: Context, user: str, body: Json) -> Row:
    model = models.find(context, user, body)
    if model["owner"] != user:
        raise denied("models.update")
    return model


def _fields(body: Json) -> set[str]:
    """What a field mask names: camelCase words with commas between (protobuf's JSON form)."""
    return {field.strip() for field in text(body, "updateMask").split(",")}


def _updated(context: Context, identity: int, ref: str) -> Json:
    return {"id": identity, "ref": ref, "url": context.page(f"models/{ref}"), "error": ""}


# CreateModel, CreateModelInstance and CreateModelInstanceVersion: uploaded blobs become the files of a version.

# As Kaggle's client checks slugs before it sends them.
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
# What is kept of a variation as it came; whether the base model exists is not asked.
TEXTS = ("overview", "usage", "licenseName", "baseModelInstance", "externalBaseModelUrl")
# kagglesdk 0.1.37, models/types/model_enums.py.
_TYPES = ("UNSPECIFIED", "BASE_MODEL", "KAGGLE_VARIANT", "EXTERNAL_VARIANT")


def create(context: Context, user: str, body: Json) -> Json:
    """CreateModel: a model without variations; private unless isPrivate is false."""
    owner, slug, title = name(text(body, "ownerSlug") or user, "owner"), text(body, "slug"), text(body, "title")
    if owner != user:
        raise denied("models.create")
    if not _is_slug(slug):
        return _refused(400, f"{slug!r} is not a valid model slug.")
    if not title:
        return _refused(400, "A model needs a title.")
    details = {part: text(body, part) for part in ("subtitle", "description", "provenanceSources")}
    private = body.get("isPrivate") is not False
    try:
        with context.db.write() as db:
            made = db.execute(
                "INSERT INTO models (owner, slug, title, private, created, details) VALUES (?, ?, ?, ?, ?, ?)",
                (owner, slug, title, private, time.time(), json.dumps(details)),
            )
    except sqlite3.IntegrityError:
        return _refused(409, f"The model {owner}/{slug} already exists.")
    return _made(context, int(made.lastrowid or 0), f"{owner}/{slug}")


def create_instance(context: Context, user: str, body: Json) -> Json:
    """CreateModelInstance: a variation, with its first version."""
    model, given = _model_uploads_own(context, user, body), _inner(body)
    framework, variation = text(given, "framework"), text(given, "instanceSlug")
    if on_the_wire(framework) is None:
        return _refused(400, f"{framework!r} is not a valid framework.")
    if not _is_slug(variation):
        return _refused(400, f"{variation!r} is not a valid variation slug.")
    key = (model["id"], spelled(framework), variation)
    # The license may be left out while the model is private; which names Kaggle knows is not checked here.
    details: Json = {part: text(given, part) for part in TEXTS}
    details |= {"fineTunable": bool(given.get("fineTunable")), "trainingData": strings(given, "trainingData")}
    details |= {"modelInstanceType": f"MODEL_INSTANCE_TYPE_{_type(given)}"}
    with laid_out(context, user, given, "model") as upload, context.db.write() as db:
        taken = "SELECT 1 FROM model_versions WHERE model = ? AND framework = ? AND variation = ?"
        if db.execute(taken, key).fetchone() is not None:
            return _refused(409, f"The variation {variation} already exists.")
        db.execute("INSERT INTO model_instances VALUES (?, ?, ?, ?)", (*key, json.dumps(details)))
        identity = _add_version(context, db, model, key, upload, "")
    blobs.discard(context, upload.tokens)
    return _made(context, identity, f"{model['owner']}/{model['slug']}/{key[1]}/{variation}/1")


def create_version(context: Context, user: str, body: Json) -> Json:
    """CreateModelInstanceVersion."""
    model, given = _model_uploads_own(context, user, body), _inner(body)
    newest = models.versions(context, user, body)[1][0]
    key = (model["id"], newest["framework"], newest["variation"])
    with laid_out(context, user, given, "model") as upload, context.db.write() as db:
        identity = _add_version(context, db, model, key, upload, text(given, "versionNotes"))
        number = db.execute("SELECT number FROM model_versions WHERE id = ?", (identity,)).fetchone()["number"]
    blobs.discard(context, upload.tokens)
    return _made(context, identity, f"{model['owner']}/{model['slug']}/{key[1]}/{key[2]}/{number}")


def _is_slug(value: str) -> bool:
    return _SLUG.fullmatch(value) is not None and name(value, "slug") == value


def _model_uploads_own(context: Context, user: str, body: Json) -> Row:
    model = models.find(context, user, body)
    if model["owner"] != user:
        raise denied("models.update")
    return model


def _inner(body: Json) -> Json:
    given = body.get("body") or {}
    if not isinstance(given, dict):
        raise ApiError(400, "body must be an object.")
    return given


def _type(given: Json) -> str:
    word = text(given, "modelInstanceType").upper().removeprefix("MODEL_INSTANCE_TYPE_") or _TYPES[0]
    if word not in _TYPES:
        raise ApiError(400, f"{word!r} is not a valid modelInstanceType.")
    return word


def _add_version(
    context: Context, db: sqlite3.Connection, model: Row, key: tuple[int, str, str], upload: Upload, notes: str
) -> int:
    """Record the next version of a variation (`key`: model's row id, framework, variation) and move its files there."""
    last = db.execute(
        "SELECT coalesce(max(number), 0) AS n FROM model_versions WHERE model = ? AND framework = ? AND variation = ?",
        key,
    )
    number, now = last.fetchone()["n"] + 1, time.time()
    trees.settle(upload.folder, model_folder(context.root, model["owner"], model["slug"], *key[1:], number))
    made = db.execute(
        "INSERT INTO model_versions (model, framework, variation, number, fingerprint, bytes, created, notes, failed,"
        " ready) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*key, number, *upload.fingerprint, now, notes, upload.failed, now + context.profile.dataset_seconds),
    )
    return int(made.lastrowid or 0)


def _made(context: Context, identity: int, ref: str) -> Json:
    return {"id": identity, "ref": ref, "url": context.page(f"models/{ref}"), "error": ""}


def _refused(code: int, words: str) -> Json:
    return {"id": 0, "error": words, "errorCode": code}
