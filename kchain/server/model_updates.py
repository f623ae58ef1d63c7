"""UpdateModel and UpdateModelInstance: what was said of a model or a variation, replaced field by field."""

from __future__ import annotations

import json

from kchain.server import models
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.wire import Json, denied, strings, text

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
    model, fields = _own(context, user, body), _fields(body)
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
    _own(context, user, body)
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


def _own(context: Context, user: str, body: Json) -> Row:
    model = models.find(context, user, body)
    if model["owner"] != user:
        raise denied("models.update")
    return model


def _fields(body: Json) -> set[str]:
    """What a field mask names: camelCase words with commas between (protobuf's JSON form)."""
    return {field.strip() for field in text(body, "updateMask").split(",")}


def _updated(context: Context, identity: int, ref: str) -> Json:
    return {"id": identity, "ref": ref, "url": context.page(f"models/{ref}"), "error": ""}
