"""What a session leaves: its outputs as lists and signed addresses, and its log, live while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from kchain.server import runner, trees
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.kernels import KernelPage, KernelRef, find, is_over, session_of
from kchain.server.runner import LOG
from kchain.server.wire import ApiError, Json, Number, Request, Text, denied, name, page, timestamp

END = "END_OF_LOG"
_LOOK_SECONDS = 0.1


class StreamCut(Exception):
    """The stream is broken off, as a load balancer does with one that has been silent for long."""


def lines(folder: Path, position: int = 0) -> tuple[list[str], int]:
    """The whole log lines after byte `position`, and the position after them; a line still being written waits."""
    path = folder / LOG
    if not path.exists():
        return [], position
    with path.open("rb") as file:
        file.seek(position)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode().splitlines(), position + len(whole)


def as_array(folder: Path) -> str:
    """The finished log as Kaggle stores it: one JSON array, one object {stream_name, time, data} per line."""
    return "[" + "\n,".join(lines(folder)[0]) + "\n]"


async def events(folder: Path, is_over: Callable[[], bool], cut_seconds: float | None) -> AsyncIterator[str]:
    """Server-sent events: the log from its beginning, then each line as it is written, then END_OF_LOG.

    Args:
        folder: the session's.
        is_over: asks whether the session has ended.
        cut_seconds: longest silence before the stream is broken off; None for ever.

    Raises:
        StreamCut: after that silence.
    """
    position, last = 0, time.monotonic()
    while True:
        over = await asyncio.to_thread(is_over)  # before the read: what was written up to the end is then in it
        fresh, position = lines(folder, position)
        for line in fresh:
            yield f"data: {line}\n\n"
        if fresh:
            last = time.monotonic()
        elif over:
            yield f"data: {END}\n\n"
            return
        elif cut_seconds is not None and time.monotonic() - last > cut_seconds:
            raise StreamCut
        await asyncio.sleep(_LOOK_SECONDS)


def working(context: Context, session: int) -> Path:
    """The folder whose files are a session's outputs."""
    return runner.kaggle_root(context.sessions.folder(session)) / "working"


def _listed(context: Context, session: Row) -> list[tuple[str, Path]]:
    if not is_over(session) or not session["keeps_outputs"]:
        return []
    return list(trees.walk(working(context, session["id"])))


class DownloadOutput(Request):
    owner_slug: Text = ""
    kernel_slug: Text = ""
    version_number: Number = 0
    file_path: Text = ""


def list_outputs(context: Context, user: str, asked: KernelPage) -> Json:
    """ListKernelSessionOutput: nothing while the session runs; the log comes with the first page."""
    session = session_of(context, find(context, user, asked)[1])
    shown, token, start = page(_listed(context, session), asked)
    path = f"output/{session['id']}/"
    answer: Json = {
        "files": [{"url": context.signed(path + name), "fileName": name} for name, _ in shown],
        "nextPageToken": token,
    }
    if start == 0 and is_over(session):
        answer["log"] = as_array(context.sessions.folder(session["id"]))
    return answer


def list_files(context: Context, user: str, asked: KernelPage) -> Json:
    """ListKernelFiles: names, bytes and times of the outputs."""
    session = session_of(context, find(context, user, asked)[1])
    shown, token, _ = page(_listed(context, session), asked)
    return {
        "files": [
            {"name": name, "size": path.stat().st_size, "creationDate": timestamp(path.stat().st_mtime)}
            for name, path in shown
        ],
        "nextPageToken": token,
    }


def download(context: Context, user: str, asked: DownloadOutput) -> str:
    """DownloadKernelOutput: the signed address of one output, to be sent as a redirect.

    It begins with "redirected": a client sends its credentials along to the same host, which Kaggle's is not.
    """
    owner, slug = name(asked.owner_slug, "owner"), name(asked.kernel_slug, "kernel")
    kernel = KernelRef(user_name=owner, kernel_slug=slug, version_label=str(asked.version_number or ""))
    session = session_of(context, find(context, user, kernel)[1])
    path = asked.file_path
    if path not in dict(_listed(context, session)):
        raise ApiError(404, f"There is no output {path!r}.")
    return context.signed(f"redirected/{session['id']}/{path}")


def file(context: Context, session: str, path: str) -> Path:
    """The file behind a signed output address.

    Raises:
        ApiError: 404, when that session has no such output.
    """
    row = context.db.one("SELECT * FROM sessions WHERE id = ?", session)
    if row is None:
        raise denied("kernels.get")
    found = dict(_listed(context, row)).get(path)
    if found is None:
        raise ApiError(404, f"There is no output {path!r}.")
    return found
