"""Uploaded blobs laid out as the files of a data set or model version to be: archives unpacked, directories made."""

from __future__ import annotations

import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kchain.server import blobs, files
from kchain.server.context import Context
from kchain.server.wire import ApiError, Json, objects, text


@dataclass(frozen=True)
class Upload:
    """Blobs laid out as the files of a version to be.

    Attributes:
        folder: temporary, made by `laid_out`.
        failed: whether an archive in it was damaged or unsafe; the version is then FAILED, as on Kaggle.
        fingerprint: of its files, with their bytes together.
    """

    folder: Path
    tokens: list[str]
    failed: bool
    fingerprint: tuple[str, int]


@contextmanager
def laid_out(context: Context, user: str, body: Json, what: str) -> Iterator[Upload]:
    """The `files` and `directories` of a request in a temporary folder, to be moved to its place within this context.

    The blobs stay until the caller discards them.

    Args:
        what: "dataset" or "model", for words.

    Raises:
        ApiError: 400, when an upload is unknown or incomplete, or there is none.
    """
    folder = Path(tempfile.mkdtemp(dir=context.root, prefix=".upload-"))
    try:
        tokens, failed = _level(context, user, body, folder)
        if not tokens:
            raise ApiError(400, f"A {what} needs at least one file.")
        yield Upload(folder, tokens, failed, files.fingerprint(folder))
    finally:
        files.remove_tree(folder)


def _level(context: Context, user: str, body: Json, folder: Path) -> tuple[list[str], bool]:
    tokens, failed = [], False
    for entry in objects(body, "files"):
        token = text(entry, "token")
        file, path = blobs.take(context, user, token)
        tokens.append(token)
        try:
            _place(path, file, folder)
        except (files.UnsafeName, zipfile.BadZipFile, tarfile.TarError, EOFError, OSError):
            failed = True
    for entry in objects(body, "directories"):
        inner = _directory(folder, text(entry, "name"))
        more, broken = _level(context, user, entry, inner)
        tokens, failed = tokens + more, failed or broken
    return tokens, failed


def _directory(folder: Path, given: str) -> Path:
    try:
        path = files.safe_join(folder, given)
        path.mkdir(parents=True, exist_ok=True)
    except (files.UnsafeName, FileExistsError, NotADirectoryError) as error:
        raise ApiError(400, f"{given!r} is no directory name.") from error
    return path


def _place(blob: Path, file: str, folder: Path) -> None:
    if files.is_archive(file):
        files.unpack(blob, file, folder)
        return
    path = files.safe_join(folder, file)
    path.unlink(missing_ok=True)
    os.link(blob, path)  # gigabytes of a model are not copied; nobody writes to a complete blob again
