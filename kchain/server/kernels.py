"""Kernels and their versions: find, read, list, status, delete, cancel."""

from __future__ import annotations

import json
import sqlite3
import time
from typing import Any

from kchain.phases.machines import ACCELERATORS, RETIRED, TPUS
from kchain.server import sources, trees
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.wire import (
    ApiError,
    Json,
    denied,
    duration,
    name,
    number,
    page,
    pair,
    slug_of,
    strings,
    text,
    timestamp,
)

# Session caps and weekly accelerator hours.

HOUR = 3600
WEEK = 7 * 24 * HOUR
# 1970-01-03 was a Saturday: weeks are counted from there, 00:00 UTC.
_FIRST_SATURDAY = 2 * 24 * HOUR


def week_start(now: float) -> float:
    """The last Saturday, 00:00 UTC, in seconds since 1970."""
    return now - (now - _FIRST_SATURDAY) % WEEK


def used(context: Context, user: str, device: str, now: float) -> tuple[float, float]:
    """Seconds of `device` ("gpu" or "tpu") a user spent this week: (by ended sessions, by running ones so far)."""
    start = week_start(now)
    rows = context.db.all(
        "SELECT started, ended FROM sessions WHERE owner = ? AND device = ? AND started IS NOT NULL"
        " AND (ended IS NULL OR ended > ?)",
        user,
        device,
        start,
    )
    spans = [(row["ended"] is None, (row["ended"] or now) - max(row["started"], start)) for row in rows]
    return sum(span for running, span in spans if not running), sum(span for running, span in spans if running)


def over_quota(context: Context, user: str, device: str) -> str:
    """Why a session on `device` may not be added now, in Kaggle's words; "" when it may. Call inside a transaction."""
    now, profile = time.time(), context.profile
    kind = device.upper()
    accelerated = device != "cpu"
    cap = profile.gpu_sessions if accelerated else profile.cpu_sessions
    row = context.db.one(
        "SELECT count(*) AS n FROM sessions WHERE owner = ? AND (device != 'cpu') = ? AND started IS NOT NULL"
        " AND (ended IS NULL OR (status != 'COMPLETE' AND ended > ?))"
        " OR owner = ? AND (device != 'cpu') = ? AND status = 'QUEUED'",
        *(user, accelerated, now - profile.ghost_seconds, user, accelerated),
    )
    if cap is not None and row is not None and row["n"] >= cap:
        return f"Maximum batch {kind} session count of {cap} reached."
    hours = {"gpu": profile.gpu_hours, "tpu": profile.tpu_hours}.get(device)
    if hours is not None and sum(used(context, user, device, now)) >= hours * HOUR:
        return f"Maximum weekly {kind} quota of {hours:.2f} hours reached."
    return ""


def statistics(context: Context, user: str, body: Json) -> Json:
    """GetAcceleratorQuotaStatistics. A profile without quota answers with no quota at all.

    `timeReserved` is what running sessions have used up to now.
    """
    now, answer = time.time(), Json()
    for device, hours in (("gpu", context.profile.gpu_hours), ("tpu", context.profile.tpu_hours)):
        if hours is not None:
            ended, running = used(context, user, device, now)
            answer[f"{device}Quota"] = {
                "timeUsed": duration(ended),
                "timeReserved": duration(running),
                "totalTimeAllowed": duration(hours * HOUR),
                "minimumTimeAllowed": duration(0),
                "isPayToScaleEnabled": False,
                "hasEverRun": ended + running > 0,
            }
    return answer | ({"quotaRefreshTime": timestamp(week_start(now) + WEEK)} if answer else {})


# SaveKernel: what Kaggle refuses, what it warns about, and the version and session it makes.

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
    if refusal := over_quota(context, user, settings["device"]):
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


LONGEST_LIST = 1000
NO_RUNS = "No runs found for this kernel."
# What a list can be filtered by, and the setting of a version that holds it.
_SOURCE_FILTERS = {
    "dataset": "datasetDataSources",
    "competition": "competitionDataSources",
    "parentKernel": "kernelDataSources",
}


def find(context: Context, user: str, body: Json) -> tuple[Row, Row]:
    """(kernel, version) that a request names by userName, kernelSlug and versionLabel.

    A version can be asked for as `versionLabel` "v3" or "3" (client 2.2.5) or as kernelSlug "slug/3" (2.2.4); without
    one it is the latest.

    Raises:
        ApiError: 403 (or the profile's choice) for a kernel that is not there or not this user's to read; 404 for a
            version it does not have.
    """
    slug, _, tail = text(body, "kernelSlug").partition("/")
    label = (text(body, "versionLabel") or tail).removeprefix("v")
    owner = text(body, "userName") or user
    kernel = context.db.one("SELECT * FROM kernels WHERE owner = ? AND slug = ?", owner.lower(), slug.lower())
    if kernel is None or not _may_read(context, user, kernel) or _too_new(context, kernel):
        raise _unknown(context)
    if label and not label.isdigit():
        raise ApiError(400, f"{label!r} is not a version.")
    version = context.db.one(
        "SELECT * FROM versions WHERE kernel = ? AND (number = ? OR ? = '') ORDER BY number DESC",
        *(kernel["id"], label, label),
    )
    if version is None:
        raise ApiError(404, f"Version {label} was not found.")
    return kernel, version


def _unknown(context: Context) -> ApiError:
    if context.profile.unknown_kernel == 404:
        return ApiError(404, "Kernel not found")
    return denied("kernels.get")


def _may_read(context: Context, user: str, kernel: Row) -> bool:
    return bool(kernel["owner"] == user) or sources.is_public(context, kernel["id"])


def _too_new(context: Context, kernel: Row) -> bool:
    return bool(time.time() < kernel["created"] + context.profile.visible_seconds)


def session_of(context: Context, version: Row) -> Row:
    """The session of a version.

    Raises:
        ApiError: 404, when it was only saved and never run.
    """
    session = context.db.one("SELECT * FROM sessions WHERE version = ?", version["id"])
    if session is None:
        raise ApiError(404, NO_RUNS)
    return session


def is_over(session: Row) -> bool:
    """Whether a session has come to an end of any kind."""
    return session["status"] not in ("QUEUED", "RUNNING", "CANCEL_REQUESTED")


def status(context: Context, user: str, body: Json) -> Json:
    """GetKernelSessionStatus."""
    _, version = find(context, user, body)
    session = session_of(context, version)
    answer = {"status": session["status"]}
    return answer | ({"failureMessage": session["failure"]} if session["failure"] else {})


def get(context: Context, user: str, body: Json) -> Json:
    """GetKernel: metadata, and the source as it was pushed."""
    kernel, version = find(context, user, body)
    settings = json.loads(version["settings"])
    blob = {
        "source": version["source"],
        "language": settings["language"],
        "kernelType": settings["kernelType"],
        "slug": kernel["slug"],
    }
    return {"metadata": _metadata(kernel, version["number"], version["created"], settings), "blob": blob}


def _metadata(kernel: Row, version: int, pushed: float, settings: Json) -> Json:
    hidden = ("mounts", "device", "gpus")
    shown = {key: value for key, value in settings.items() if key not in hidden}
    return shown | {
        "id": kernel["id"],
        "ref": f"{kernel['owner']}/{kernel['slug']}",
        "title": kernel["title"],
        "author": kernel["owner"],
        "slug": kernel["slug"],
        "lastRunTime": timestamp(pushed),
        "totalVotes": 0,
        "currentVersionNumber": version,
    }


def listing(context: Context, user: str, body: Json) -> Json:
    """ListKernels: one's own and public kernels, newest first.

    Filters: user, search, language, kernelType, and the source used (dataset, competition, parentKernel).
    """
    rows = context.db.all(
        "SELECT kernels.*, versions.number, versions.settings, versions.created AS pushed FROM kernels"
        " JOIN versions ON versions.kernel = kernels.id WHERE versions.number ="
        " (SELECT max(number) FROM versions AS v WHERE v.kernel = kernels.id) ORDER BY pushed DESC"
    )
    shown = []
    for row in rows:
        settings = json.loads(row["settings"])
        readable = row["owner"] == user or not settings["isPrivate"]
        if readable and not _too_new(context, row) and _wanted(row, settings, user, body):
            shown.append(_metadata(row, row["number"], row["pushed"], settings))
    found, token, _ = page(shown[:LONGEST_LIST], body)
    return {"kernels": list(found), "nextPageToken": token}


def _wanted(row: Row, settings: Json, user: str, body: Json) -> bool:
    owner = user if text(body, "group") == "PROFILE" else text(body, "user").lower()
    search = text(body, "search").lower()
    equal = all(text(body, key) in ("", "all", settings[key]) for key in ("language", "kernelType"))
    used = all(text(body, key) in ("", *settings[kept]) for key, kept in _SOURCE_FILTERS.items())
    return owner in ("", row["owner"]) and search in f"{row['slug']} {row['title']}".lower() and equal and used


def delete(context: Context, user: str, body: Json) -> Json:
    """DeleteKernel: its running session is ended; what other kernels mounted of it stays theirs."""
    owner, slug = name(body.get("userName"), "user"), name(body.get("kernelSlug"), "kernel")
    kernel = context.db.one("SELECT * FROM kernels WHERE owner = ? AND slug = ?", owner, slug)
    if kernel is None or owner != user:
        raise denied("kernels.delete")
    rows = context.db.all(
        "SELECT sessions.* FROM sessions JOIN versions ON versions.id = sessions.version WHERE versions.kernel = ?",
        kernel["id"],
    )
    for session in rows:
        context.sessions.cancel(session["id"])
    with context.db.write() as db:
        db.execute("DELETE FROM kernels WHERE id = ?", (kernel["id"],))
    for session in rows:
        if is_over(session):
            trees.remove_tree(context.sessions.folder(session["id"]))
    return {}


def cancel(context: Context, user: str, body: Json) -> Json:
    """CancelKernelSession, by the session's number, for whoever started it."""
    session = context.db.one("SELECT * FROM sessions WHERE id = ?", number(body, "kernelSessionId"))
    if session is None or session["owner"] != user:
        raise denied("kernelSessions.cancel")
    context.sessions.cancel(session["id"])
    return {}
