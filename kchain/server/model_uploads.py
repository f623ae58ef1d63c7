"""CreateModel, CreateModelInstance and CreateModelInstanceVersion: uploaded blobs become the files of a version.

A refusal is HTTP 200 with `error` and `errorCode`, as Kaggle answers here (its own kagglehub makes a new version when a
variation's creation says errorCode 409). Nobody has told its words, nor what it says of a first version that is still
being processed: here a second one may follow at once.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time

from kchain.server import blobs, files, models
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.frameworks import on_the_wire, spelled
from kchain.server.layout import Upload, laid_out
from kchain.server.publish import model_folder
from kchain.server.wire import ApiError, Json, denied, name, strings, text

# As Kaggle's client checks slugs before it sends them.
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
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
    model, given = _own(context, user, body), _inner(body)
    framework, variation = text(given, "framework"), text(given, "instanceSlug")
    if on_the_wire(framework) is None:
        return _refused(400, f"{framework!r} is not a valid framework.")
    if not _is_slug(variation):
        return _refused(400, f"{variation!r} is not a valid variation slug.")
    key = (model["id"], spelled(framework), variation)
    # The license may be left out while the model is private; which names Kaggle knows is not checked here.
    details: Json = {part: text(given, part) for part in ("overview", "usage", "licenseName", "externalBaseModelUrl")}
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
    model, given = _own(context, user, body), _inner(body)
    newest = models.versions(context, user, body)[1][0]
    key = (model["id"], newest["framework"], newest["variation"])
    with laid_out(context, user, given, "model") as upload, context.db.write() as db:
        identity = _add_version(context, db, model, key, upload, text(given, "versionNotes"))
        number = db.execute("SELECT number FROM model_versions WHERE id = ?", (identity,)).fetchone()["number"]
    blobs.discard(context, upload.tokens)
    return _made(context, identity, f"{model['owner']}/{model['slug']}/{key[1]}/{key[2]}/{number}")


def _is_slug(value: str) -> bool:
    return _SLUG.fullmatch(value) is not None and name(value, "slug") == value


def _own(context: Context, user: str, body: Json) -> Row:
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
    files.settle(upload.folder, model_folder(context.root, model["owner"], model["slug"], *key[1:], number))
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
