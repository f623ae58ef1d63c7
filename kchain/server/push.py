"""SaveKernel: what Kaggle refuses, what it warns about, and the version and session it makes."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any

from kchain.phases.accelerators import ACCELERATORS, RETIRED, TPUS
from kchain.server import quota, sources
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.wire import ApiError, Json, name, number, pair, slug_of, strings, text

SHORTEST_TITLE = 5
DEFAULT_GPU = "NvidiaTeslaT4"
_KINDS = ("SAVE_AND_RUN_ALL", "QUICK_SAVE")


class Refused(Exception):
    """A push refused Kaggle's way: HTTP 200 and a non-empty `error`."""


def save_kernel(context: Context, user: str, body: Json) -> Json:
    """Make a new version of a kernel and queue its session.

    Raises:
        ApiError: 400 for a bad or too long request, 409 for the title rule, a title in use, an unready data set.
    """
    _check_source(context, body)
    kind = text(body, "kernelExecutionType") or _KINDS[0]
    if kind not in _KINDS:
        raise ApiError(400, f"kernelExecutionType {kind} is not supported.")
    superseded: list[int] = []
    try:
        with context.db.write() as db:
            kernel, owner, slug, title = _place(context, user, body)
            found = sources.resolve(context, user, f"{owner}/{slug}", body)
            settings = _settings(body, found)
            if kind == "SAVE_AND_RUN_ALL":
                superseded = _make_room(context, user, kernel, settings)
            version, version_number = _add_version(db, kernel, owner, slug, title, text(body, "text"), settings)
            if kind == "SAVE_AND_RUN_ALL":
                _add_session(context, db, owner, version, settings, number(body, "sessionTimeoutSeconds"))
    except Refused as refusal:
        return {"error": str(refusal)}
    for session in superseded:
        context.sessions.cancel(session)
    context.sessions.wake()
    ref = f"/code/{owner}/{slug}"
    answer: Json = {"ref": ref, "url": context.page(ref[1:]), "versionNumber": version_number, "error": ""}
    return {**answer, "invalidTags": [], **{f"invalid{kind}Sources": [] for kind in sources.KINDS}, **found.invalid}


def _check_source(context: Context, body: Json) -> None:
    limit, size = context.profile.source_bytes, len(text(body, "text").encode())
    if limit is not None and size > limit:
        raise ApiError(400, f"The source has {size} bytes; at most {limit} are accepted.")
    if text(body, "kernelType") not in ("notebook", "script"):
        raise ApiError(400, "kernelType must be notebook or script.")
    if text(body, "language") not in ("python", "r", "rmarkdown"):
        raise ApiError(400, "language must be python, r or rmarkdown.")


def _place(context: Context, user: str, body: Json) -> tuple[Row | None, str, str, str]:
    """(kernel row or None for a new one, owner, slug, title) of a push.

    The rule of like-kaggle: a new kernel lives under the slug of its title, whatever `id` says; an existing one keeps
    its slug, so that a title which makes another slug is a conflict.
    """
    title = text(body, "newTitle")
    if body.get("id"):
        kernel = context.db.one("SELECT * FROM kernels WHERE id = ? AND owner = ?", number(body, "id"), user)
        if kernel is None:
            raise Refused("Kernel not found")
        owner, slug = kernel["owner"], kernel["slug"]
    else:
        owner, slug = pair(body.get("slug"), "kernel")
        kernel = context.db.one("SELECT * FROM kernels WHERE owner = ? AND slug = ?", owner, slug)
    if owner != user:
        raise Refused("Notebook not found")
    title = title or (kernel["title"] if kernel is not None else slug)
    if len(title) < SHORTEST_TITLE:
        raise ApiError(400, f"The title must have at least {SHORTEST_TITLE} characters.")
    if context.profile.title_rule:
        made = name(slug_of(title), "slug of the title")
        if kernel is not None and made != slug:
            raise ApiError(409, f"The title makes the slug {made}, but this notebook is {slug}.")
        slug = made
        _check_title(context, owner, slug, title, kernel)
    return kernel, owner, slug, title


def _check_title(context: Context, owner: str, slug: str, title: str, kernel: Row | None) -> None:
    """409 where another notebook of this owner has the title, or the slug that the title makes."""
    other = context.db.one(
        "SELECT 1 FROM kernels WHERE owner = ? AND (title = ? OR slug = ?) AND id != ?",
        *(owner, title, slug, kernel["id"] if kernel is not None else -1),
    )
    if other is not None:
        raise ApiError(409, f"The title {title!r} is already in use by another notebook.")


def _settings(body: Json, found: sources.Sources) -> Json:
    """What is kept with a version, the device it runs on included."""
    shape = text(body, "machineShape")
    shape = RETIRED.get(shape, shape)
    gpu = bool(body.get("enableGpu")) or shape.startswith("Nvidia")
    tpu = bool(body.get("enableTpu")) or shape in TPUS
    device = "gpu" if gpu else "tpu" if tpu else "cpu"
    machine = ACCELERATORS.get(shape or DEFAULT_GPU)
    kept = ("datasetDataSources", "kernelDataSources", "modelDataSources", "competitionDataSources", "categoryIds")
    return {
        "language": text(body, "language"),
        "kernelType": text(body, "kernelType"),
        "isPrivate": bool(body.get("isPrivate")),
        "enableGpu": gpu,
        "enableTpu": tpu,
        "enableInternet": bool(body.get("enableInternet")),
        "machineShape": shape or (DEFAULT_GPU if gpu else ""),
        "dockerImage": text(body, "dockerImage"),
        "device": device,
        "gpus": (machine.gpus if machine is not None else 1) if gpu else 0,
        "mounts": found.mounts,
        **{key: _valid(strings(body, key), found) for key in kept},
    }


def _valid(refs: list[str], found: sources.Sources) -> list[str]:
    refused = {ref for refs in found.invalid.values() for ref in refs}
    return [ref for ref in refs if ref not in refused]


def _make_room(context: Context, user: str, kernel: Row | None, settings: Json) -> list[int]:
    """Check that a session may be added; the sessions that it supersedes (none where versions run side by side)."""
    profile = context.profile
    if settings["device"] == "gpu" and profile.gpus == 0:
        raise Refused("This machine has no GPU: switch the accelerator off, or serve with --profile like-kaggle.")
    if settings["device"] == "tpu" and profile.name == "machine":
        raise Refused("This machine has no TPU.")
    active = _active(context, kernel["id"]) if kernel is not None else []
    if active and profile.on_running == "conflict":
        raise ApiError(409, "A version of this notebook is still running.")
    if refusal := quota.over_quota(context, user, settings["device"]):
        raise Refused(refusal)
    return active if profile.on_running == "supersede" else []


def _active(context: Context, kernel: int) -> list[int]:
    rows = context.db.all(
        "SELECT sessions.id FROM sessions JOIN versions ON versions.id = sessions.version"
        " WHERE versions.kernel = ? AND status IN ('QUEUED', 'RUNNING', 'CANCEL_REQUESTED')",
        kernel,
    )
    return [row["id"] for row in rows]


def _add_version(
    db: sqlite3.Connection, kernel: Row | None, owner: str, slug: str, title: str, source: str, settings: Json
) -> tuple[int, int]:
    """(row id, version number) of the new version; makes the kernel where it is new."""
    now = time.time()
    if kernel is None:
        values: tuple[Any, ...] = (owner, slug, title, now)
        made = db.execute("INSERT INTO kernels (owner, slug, title, created) VALUES (?, ?, ?, ?)", values)
        identity = made.lastrowid
    else:
        identity = kernel["id"]
        db.execute("UPDATE kernels SET title = ? WHERE id = ?", (title, identity))
    last = db.execute("SELECT coalesce(max(number), 0) AS n FROM versions WHERE kernel = ?", (identity,)).fetchone()
    version = db.execute(
        "INSERT INTO versions (kernel, number, source, settings, created) VALUES (?, ?, ?, ?, ?)",
        (identity, last["n"] + 1, source, json.dumps(settings), now),
    )
    return int(version.lastrowid or 0), int(last["n"]) + 1


def _add_session(
    context: Context, db: sqlite3.Connection, owner: str, version: int, settings: Json, timeout: int
) -> None:
    """Queue the version. Its limit is the shorter of its own and the profile's; only the latter may cost outputs."""
    limits = [limit for limit in (timeout, context.profile.run_limit_seconds) if limit]
    own = bool(timeout) and timeout == min(limits)
    db.execute(
        "INSERT INTO sessions (owner, version, status, device, gpus, time_limit, keeps_outputs, queued)"
        " VALUES (?, ?, 'QUEUED', ?, ?, ?, ?, ?)",
        (
            *(owner, version, settings["device"], settings["gpus"], min(limits, default=None)),
            *(own or context.profile.outputs_after_run_limit, time.time()),
        ),
    )
