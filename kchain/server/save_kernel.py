"""SaveKernel: what Kaggle refuses, what it warns about, and the version and session it makes; caps and weekly hours."""

from __future__ import annotations

import json
import sqlite3
import time

from kchain.phases.machines import ACCELERATORS, RETIRED, TPUS
from kchain.server import sources
from kchain.server.context import Context
from kchain.server.db import IS_LIVE, Row
from kchain.server.sources import SourceLists
from kchain.server.wire import ApiError, Flag, Json, Number, Request, Text, Texts, duration, name, slug_of, timestamp

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


def statistics(context: Context, user: str, asked: Request) -> Json:
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


SHORTEST_TITLE = 5
DEFAULT_GPU = "NvidiaTeslaT4"
_KINDS = ("SAVE_AND_RUN_ALL", "QUICK_SAVE")


class SaveKernel(SourceLists):
    id: Number = 0
    slug: Text = ""
    new_title: Text = ""
    text: Text = ""
    language: Text = ""
    kernel_type: Text = ""
    kernel_execution_type: Text = _KINDS[0]
    session_timeout_seconds: Number = 0
    is_private: Flag = False
    enable_gpu: Flag = False
    enable_tpu: Flag = False
    enable_internet: Flag = False
    machine_shape: Text = ""
    docker_image: Text = ""
    category_ids: Texts = []


class Refused(Exception):
    """A push refused Kaggle's way: HTTP 200 and a non-empty `error`."""


def save_kernel(context: Context, user: str, asked: SaveKernel) -> Json:
    """Make a new version of a kernel and queue its session.

    Raises:
        ApiError: 400 for a bad or too long request, 409 for the title rule, a title in use, an unready data set.
    """
    _check(context, asked)
    runs = asked.kernel_execution_type == "SAVE_AND_RUN_ALL"
    superseded: list[int] = []
    try:
        with context.db.write() as db:
            kernel, owner, slug, title = _place(context, user, asked)
            found = sources.resolve(context, user, f"{owner}/{slug}", asked)
            settings = _settings(asked, found)
            if runs:
                superseded = _make_room(context, user, kernel, settings)
            version, version_number = _add_version(db, kernel, owner, slug, title, asked.text, settings)
            if runs:
                _add_session(context, db, owner, version, settings, asked.session_timeout_seconds)
    except Refused as refusal:
        return {"error": str(refusal)}
    for session in superseded:
        context.sessions.cancel(session)
    context.sessions.wake()
    ref = f"/code/{owner}/{slug}"
    answer: Json = {"ref": ref, "url": context.page(ref[1:]), "versionNumber": version_number, "error": ""}
    return {**answer, "invalidTags": [], **{f"invalid{kind}Sources": [] for kind in sources.KINDS}, **found.invalid}


def _check(context: Context, asked: SaveKernel) -> None:
    limit, size = context.profile.source_bytes, len(asked.text.encode())
    if limit is not None and size > limit:
        raise ApiError(400, f"The source has {size} bytes; at most {limit} are accepted.")
    if asked.kernel_type not in ("notebook", "script"):
        raise ApiError(400, "kernelType must be notebook or script.")
    if asked.language not in ("python", "r", "rmarkdown"):
        raise ApiError(400, "language must be python, r or rmarkdown.")
    if asked.kernel_execution_type not in _KINDS:
        raise ApiError(400, f"kernelExecutionType {asked.kernel_execution_type} is not supported.")


def _place(context: Context, user: str, asked: SaveKernel) -> tuple[Row | None, str, str, str]:
    """(kernel row or None for a new one, owner, slug, title) of a push.

    The rule of like-kaggle: a new kernel lives under the slug of its title, whatever `id` says; an existing one keeps
    its slug, so that a title which makes another slug is a conflict.
    """
    title = asked.new_title
    if asked.id:
        kernel = context.db.one("SELECT * FROM kernels WHERE id = ? AND owner = ?", asked.id, user)
        if kernel is None:
            raise Refused("Kernel not found")
        owner, slug = kernel["owner"], kernel["slug"]
    else:
        owner, _, slug = asked.slug.partition("/")
        owner, slug = name(owner, "kernel: owner/slug is wanted"), name(slug, "kernel: owner/slug is wanted")
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


def _settings(asked: SaveKernel, found: sources.Sources) -> Json:
    """What is kept with a version, the device it runs on included."""
    shape = RETIRED.get(asked.machine_shape, asked.machine_shape)
    gpu = asked.enable_gpu or shape.startswith("Nvidia")
    tpu = asked.enable_tpu or shape in TPUS
    device = "gpu" if gpu else "tpu" if tpu else "cpu"
    machine = ACCELERATORS.get(shape or DEFAULT_GPU)
    refused = {ref for refs in found.invalid.values() for ref in refs}
    kept = asked.model_dump(by_alias=True, include={*SourceLists.model_fields, "category_ids"})
    return {
        "language": asked.language,
        "kernelType": asked.kernel_type,
        "isPrivate": asked.is_private,
        "enableGpu": gpu,
        "enableTpu": tpu,
        "enableInternet": asked.enable_internet,
        "machineShape": shape or (DEFAULT_GPU if gpu else ""),
        "dockerImage": asked.docker_image,
        "device": device,
        "gpus": (machine.gpus if machine is not None else 1) if gpu else 0,
        "mounts": found.mounts,
        **{field: [ref for ref in refs if ref not in refused] for field, refs in kept.items()},
    }


def _make_room(context: Context, user: str, kernel: Row | None, settings: Json) -> list[int]:
    """Check that a session may be added; the sessions that it supersedes (none where versions run side by side)."""
    profile = context.profile
    if settings["device"] == "gpu" and profile.gpus == 0:
        raise Refused("This machine has no GPU: switch the accelerator off, or serve with --profile like-kaggle.")
    if settings["device"] == "tpu" and profile.name == "machine":
        raise Refused("This machine has no TPU.")
    live = (
        "SELECT sessions.id FROM sessions JOIN versions ON versions.id = sessions.version"
        f" WHERE versions.kernel = ? AND {IS_LIVE}"
    )
    active = [row["id"] for row in context.db.all(live, kernel["id"])] if kernel is not None else []
    if active and profile.on_running == "conflict":
        raise ApiError(409, "A version of this notebook is still running.")
    if refusal := over_quota(context, user, settings["device"]):
        raise Refused(refusal)
    return active if profile.on_running == "supersede" else []


def _add_version(
    db: sqlite3.Connection, kernel: Row | None, owner: str, slug: str, title: str, source: str, settings: Json
) -> tuple[int, int]:
    """(row id, version number) of the new version; makes the kernel where it is new."""
    now = time.time()
    if kernel is None:
        insert = "INSERT INTO kernels (owner, slug, title, created) VALUES (?, ?, ?, ?)"
        identity = db.execute(insert, (owner, slug, title, now)).lastrowid
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
