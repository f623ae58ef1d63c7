"""Files that are whole or absent, names that stay in their folder, and locks that end with their holder."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath


class UnsafeName(ValueError):
    """A name that would leave the folder it belongs to."""


def write(path: Path, data: bytes | str, mode: int = 0o666) -> None:
    """Write a file so that a reader sees all of it or none, also after a crash; its folder is made where it is missing.

    Args:
        data: text is written as UTF-8, its line ends as they are.
        mode: permission bits, less the umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def put_in_place(partial: Path, path: Path) -> None:
    """Give a finished file or folder its name, so that the name lasts through a crash.

    The bytes of a file are waited for; those in a folder are its writer's to wait for.
    """
    if partial.is_file():
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
    else:
        sync_folder(partial)
    partial.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` last; Windows has no such call, and needs none."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def safe_join(folder: Path, name: str) -> Path:
    """`folder / name`, for a name that came from outside.

    Raises:
        UnsafeName: the name is empty, absolute, or has a part such as "..", or characters no file system here allows.
    """
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or name.startswith(("/", "\\")) or ".." in parts or "\x00" in name or ":" in parts[0]:
        raise UnsafeName(f"{name!r} is not a name inside the folder.")
    return folder.joinpath(*parts)


@contextmanager
def locked(path: Path, wait: float = -1) -> Iterator[None]:
    """Hold a lock on a file, made where it is missing; it goes when the process does, however that ends.

    Nothing but the lock belongs in the file: Windows lets nobody read it meanwhile.

    Args:
        wait: seconds to wait for whoever holds it; below 0 as long as it takes.

    Raises:
        BlockingIOError: somebody else still holds it.
    """
    from filelock import FileLock, Timeout  # here: a notebook that writes pages carries this file, and needs no lock

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(path).acquire(timeout=wait)
    except Timeout:
        raise BlockingIOError(f"{path} is held by another process") from None
    with lock:
        yield
