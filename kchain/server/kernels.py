"""Kernels and their versions: find, read, list, status, delete, cancel."""

from __future__ import annotations

import json
import time

from kchain.server import sources, trees
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.wire import LIVE, ApiError, Json, Number, Paging, Request, Text, denied, name, page, timestamp

LONGEST_LIST = 1000
NO_RUNS = "No runs found for this kernel."
# What a list can be filtered by, and the setting of a version that holds it.
_SOURCE_FILTERS = {
    "dataset": "datasetDataSources",
    "competition": "competitionDataSources",
    "parent_kernel": "kernelDataSources",
}


class KernelRef(Request):
    """What names a kernel and, where it is asked for, a version of it.

    A version can be asked for as `versionLabel` "v3" or "3" (client 2.2.5) or as kernelSlug "slug/3" (2.2.4); without
    one it is the latest.
    """

    user_name: Text = ""
    kernel_slug: Text = ""
    version_label: Text = ""


class KernelPage(KernelRef, Paging):
    """What names a kernel, and a page of what it has."""


class ListKernels(Paging):
    group: Text = ""
    user: Text = ""
    search: Text = ""
    language: Text = ""
    kernel_type: Text = ""
    dataset: Text = ""
    competition: Text = ""
    parent_kernel: Text = ""


class CancelSession(Request):
    kernel_session_id: Number = 0


def find(context: Context, user: str, asked: KernelRef) -> tuple[Row, Row]:
    """(kernel, version) that a request names.

    Raises:
        ApiError: 403 (or the profile's choice) for a kernel that is not there or not this user's to read; 404 for a
            version it does not have.
    """
    slug, _, tail = asked.kernel_slug.partition("/")
    label = (asked.version_label or tail).removeprefix("v")
    owner = (asked.user_name or user).lower()
    kernel = context.db.one("SELECT * FROM kernels WHERE owner = ? AND slug = ?", owner, slug.lower())
    readable = kernel is not None and (kernel["owner"] == user or sources.is_public(context, kernel["id"]))
    if kernel is None or not readable or _too_new(context, kernel):
        if context.profile.unknown_kernel == 404:
            raise ApiError(404, "Kernel not found")
        raise denied("kernels.get")
    if label and not label.isdigit():
        raise ApiError(400, f"{label!r} is not a version.")
    version = context.db.one(
        "SELECT * FROM versions WHERE kernel = ? AND (number = ? OR ? = '') ORDER BY number DESC",
        *(kernel["id"], label, label),
    )
    if version is None:
        raise ApiError(404, f"Version {label} was not found.")
    return kernel, version


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
    return session["status"] not in LIVE


def status(context: Context, user: str, asked: KernelRef) -> Json:
    session = session_of(context, find(context, user, asked)[1])
    answer = {"status": session["status"]}
    return answer | ({"failureMessage": session["failure"]} if session["failure"] else {})


def get(context: Context, user: str, asked: KernelRef) -> Json:
    """GetKernel: metadata, and the source as it was pushed."""
    kernel, version = find(context, user, asked)
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


def listing(context: Context, user: str, asked: ListKernels) -> Json:
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
        if readable and not _too_new(context, row) and _wanted(row, settings, user, asked):
            shown.append(_metadata(row, row["number"], row["pushed"], settings))
    found, token, _ = page(shown[:LONGEST_LIST], asked)
    return {"kernels": list(found), "nextPageToken": token}


def _wanted(row: Row, settings: Json, user: str, asked: ListKernels) -> bool:
    owner = user if asked.group == "PROFILE" else asked.user.lower()
    search = asked.search.lower()
    equal = asked.language in ("", "all", settings["language"])
    equal = equal and asked.kernel_type in ("", "all", settings["kernelType"])
    used = all(getattr(asked, field) in ("", *settings[kept]) for field, kept in _SOURCE_FILTERS.items())
    return owner in ("", row["owner"]) and search in f"{row['slug']} {row['title']}".lower() and equal and used


def delete(context: Context, user: str, asked: KernelRef) -> Json:
    """DeleteKernel: its running session is ended; what other kernels mounted of it stays theirs."""
    owner, slug = name(asked.user_name, "user"), name(asked.kernel_slug, "kernel")
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


def cancel(context: Context, user: str, asked: CancelSession) -> Json:
    """CancelKernelSession, by the session's number, for whoever started it."""
    session = context.db.one("SELECT * FROM sessions WHERE id = ?", asked.kernel_session_id)
    if session is None or session["owner"] != user:
        raise denied("kernelSessions.cancel")
    context.sessions.cancel(session["id"])
    return {}
