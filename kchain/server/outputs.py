"""What a finished session left in /kaggle/working: lists, signed addresses, and its log."""

from __future__ import annotations

from pathlib import Path

from kchain.server import files, logs, processes
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.kernels import find, is_over, session_of
from kchain.server.wire import ApiError, Json, denied, name, number, page, text, timestamp


def working(context: Context, session: int) -> Path:
    """The folder whose files are a session's outputs."""
    return processes.kaggle_root(context.sessions.folder(session)) / "working"


def _listed(context: Context, session: Row) -> list[tuple[str, Path]]:
    if not is_over(session) or not session["keeps_outputs"]:
        return []
    return list(files.walk(working(context, session["id"])))


def list_outputs(context: Context, user: str, body: Json) -> Json:
    """ListKernelSessionOutput: nothing while the session runs; the log comes with the first page."""
    _, version = find(context, user, body)
    session = session_of(context, version)
    shown, token, start = page(_listed(context, session), body)
    path = f"output/{session['id']}/"
    answer: Json = {
        "files": [{"url": context.signed(path + name), "fileName": name} for name, _ in shown],
        "nextPageToken": token,
    }
    if start == 0 and is_over(session):
        answer["log"] = logs.as_array(context.sessions.folder(session["id"]))
    return answer


def list_files(context: Context, user: str, body: Json) -> Json:
    """ListKernelFiles: names, bytes and times of the outputs."""
    _, version = find(context, user, body)
    shown, token, _ = page(_listed(context, session_of(context, version)), body)
    return {
        "files": [
            {"name": name, "size": path.stat().st_size, "creationDate": timestamp(path.stat().st_mtime)}
            for name, path in shown
        ],
        "nextPageToken": token,
    }


def download(context: Context, user: str, body: Json) -> str:
    """DownloadKernelOutput: the signed address of one output, to be sent as a redirect.

    It begins with "redirected": a client sends its credentials along to the same host, which Kaggle's is not.
    """
    owner, slug = name(body.get("ownerSlug"), "owner"), name(body.get("kernelSlug"), "kernel")
    wanted = {"userName": owner, "kernelSlug": slug}
    if version := number(body, "versionNumber"):
        wanted["versionLabel"] = str(version)
    session = session_of(context, find(context, user, wanted)[1])
    path = text(body, "filePath")
    if path not in dict(_listed(context, session)):
        raise ApiError(404, f"There is no output {path!r}.")
    return context.signed(f"redirected/{session['id']}/{path}")


def file(context: Context, session: str, path: str) -> Path:
    """The file behind a signed output address.

    Raises:
        ApiError: 404, when the file is no output of that session.
    """
    row = context.db.one("SELECT * FROM sessions WHERE id = ?", session)
    if row is None:
        raise denied("kernels.get")
    found = dict(_listed(context, row)).get(path)
    if found is None:
        raise ApiError(404, f"There is no output {path!r}.")
    return found
