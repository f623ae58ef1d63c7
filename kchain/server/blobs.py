"""Uploads: StartBlobUpload, the PUTs that bring the bytes, whole or resumed, and what a version is made of them."""

from __future__ import annotations

import os
import re
import secrets
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from kchain.files import UnsafeName, safe_join
from kchain.server import trees, wire
from kchain.server.context import Context
from kchain.server.db import Row
from kchain.server.things import Content
from kchain.server.wire import ApiError, Json, Number, Text

_KEPT_SECONDS = 7 * 24 * 3600
_RANGE = re.compile(r"bytes (?:\*|(\d+)-(\d+))/(\d+)")


def _path(context: Context, token: str) -> Path:
    return context.root / "blobs" / token


class StartUpload(wire.Request):
    """StartBlobUpload."""

    name: Text = ""
    content_length: Number = 0


class NewFile(wire.Request):
    """An uploaded file, by the token of its upload."""

    token: Text = ""


class Files(wire.Request):
    """Uploaded files, and folders of them, as they make up a version."""

    files: list[NewFile] = []
    directories: list[Directory] = []


class Directory(Files):
    """A folder of uploaded files."""

    name: Text = ""


Files.model_rebuild()  # it holds what is named below it


def start(context: Context, user: str, asked: StartUpload) -> Json:
    """StartBlobUpload: a token to name the blob by, and the address its bytes go to."""
    try:
        safe_join(context.root, asked.name)
    except UnsafeName as error:
        raise ApiError(400, str(error)) from error
    if "/" in asked.name or "\\" in asked.name:
        raise ApiError(400, f"{asked.name!r} is not a file name.")
    token = secrets.token_urlsafe(24)
    path = _path(context, token)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with context.db.write() as db:
        db.execute(
            "INSERT INTO blobs (token, owner, name, length, created) VALUES (?, ?, ?, ?, ?)",
            (token, user, asked.name, asked.content_length, time.time()),
        )
    return {"token": token, "createUrl": f"{context.address}/upload/{token}"}


async def receive(context: Context, request: Request) -> Response:
    """PUT of a blob's bytes.

    200: all there. 308 with `Range: bytes=0-K` (none when nothing is there): answer to the empty PUT with
    `Content-Range: bytes */N` by which a client asks how far it got, or to a part. 404: no such upload.
    """
    token = request.path_params["token"]
    row = await run_in_threadpool(context.db.one, "SELECT * FROM blobs WHERE token = ?", token)
    if row is None:
        raise ApiError(404, "There is no such upload.")
    path, given = _path(context, token), request.headers.get("content-range")
    present = path.stat().st_size
    total = row["length"]
    if given is not None:
        asked = _RANGE.fullmatch(given)
        if asked is None:
            raise ApiError(400, f"Content-Range {given!r} is not understood.")
        if asked[1] is not None and not row["complete"]:
            present = await _append(request, path, int(asked[1]), present)
    elif not row["complete"]:
        present = await _append(request, path, 0, present)
        total = total or present  # its length was not announced
    return await run_in_threadpool(_progress, context, row, present, total)


async def _append(request: Request, path: Path, start: int, present: int) -> int:
    """Write the body from byte `start` on; bytes in the file afterwards. A broken connection keeps what came."""
    if start > present:
        raise ApiError(400, f"Only {present} bytes are here: bytes from {start} on leave a gap.")
    with path.open("r+b") as file:
        file.seek(start)
        file.truncate()
        try:
            async for chunk in request.stream():
                await run_in_threadpool(file.write, chunk)
        except ClientDisconnect:
            return file.tell()
        return file.tell()


def _progress(context: Context, row: Row, present: int, total: int) -> Response:
    if present == total:
        with context.db.write() as db:
            db.execute("UPDATE blobs SET complete = 1 WHERE token = ?", (row["token"],))
        return Response(status_code=200)
    if present > total:
        _path(context, row["token"]).write_bytes(b"")
        raise ApiError(400, f"{total} bytes were announced, and {present} were sent.")
    return Response(status_code=308, headers={"Range": f"bytes=0-{present - 1}"} if present else {})


def take(context: Context, user: str, token: str) -> tuple[str, Path]:
    """(file name, path) of a complete blob of this user.

    Raises:
        ApiError: 400, when there is no such blob or it is not complete.
    """
    row = context.db.one("SELECT * FROM blobs WHERE token = ? AND owner = ? AND complete", token, user)
    if row is None:
        raise ApiError(400, "A file's upload is unknown or incomplete.")
    return str(row["name"]), _path(context, token)


def sweep(context: Context) -> None:
    """Forget uploads that nobody made use of within a week: a client's own upload state is as short-lived."""
    old = context.db.all("SELECT token FROM blobs WHERE created < ?", time.time() - _KEPT_SECONDS)
    discard(context, [row["token"] for row in old])


def discard(context: Context, tokens: Sequence[str]) -> None:
    with context.db.write() as db:
        db.executemany("DELETE FROM blobs WHERE token = ?", [(token,) for token in tokens])
    for token in tokens:
        _path(context, token).unlink(missing_ok=True)


@contextmanager
def laid_out(context: Context, user: str, asked: Files, what: str) -> Iterator[Content]:
    """The files of a request in a temporary folder, archives unpacked, to be moved to its place within this context.

    The blobs stay until the caller discards them.

    Args:
        what: "dataset" or "model", for words.

    Raises:
        ApiError: 400, when an upload is unknown or incomplete, or there is none.
    """
    folder = Path(tempfile.mkdtemp(dir=context.root, prefix=".upload-"))
    try:
        tokens, failed = _level(context, user, asked, folder)
        if not tokens:
            raise ApiError(400, f"A {what} needs at least one file.")
        yield Content(folder, trees.fingerprint(folder), failed, tuple(tokens))
    finally:
        trees.remove_tree(folder)


def _level(context: Context, user: str, asked: Files, folder: Path) -> tuple[list[str], bool]:
    """Lay out one folder and those in it: the tokens of the uploads, and whether an archive was bad."""
    tokens, failed = [given.token for given in asked.files], False
    for token in tokens:
        file, blob = take(context, user, token)
        try:
            if trees.is_archive(file):
                trees.unpack(blob, file, folder)
                continue
            path = safe_join(folder, file)
            path.unlink(missing_ok=True)
            os.link(blob, path)  # gigabytes of a model are not copied; nobody writes to a complete blob again
        except (UnsafeName, zipfile.BadZipFile, tarfile.TarError, EOFError, OSError):
            failed = True
    for given in asked.directories:
        try:
            inner = safe_join(folder, given.name)
            inner.mkdir(parents=True, exist_ok=True)
        except (UnsafeName, FileExistsError, NotADirectoryError) as error:
            raise ApiError(400, f"{given.name!r} is not a directory name.") from error
        more, broken = _level(context, user, given, inner)
        tokens, failed = tokens + more, failed or broken
    return tokens, failed
