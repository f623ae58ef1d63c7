"""Session caps and weekly accelerator hours."""

from __future__ import annotations

import time

from kchain.server.context import Context
from kchain.server.wire import Json, duration, timestamp

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
