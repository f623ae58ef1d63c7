"""One process at a time: an operating-system lock on a file, `.kchain/driver.lock` for the driver of a chain.

The system releases it when the process ends, however it ends, so no stale lock ever needs removing. The file says who
holds it.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kchain.errors import DriverLocked

LOCK = Path(".kchain") / "driver.lock"
# Windows locks are mandatory: a byte far behind the text leaves the text readable for the one who is refused.
_BYTE = 1 << 30


@contextmanager
def driver_lock(root: Path) -> Iterator[None]:
    """Be the only driver of the project in `root`.

    Raises:
        DriverLocked: another process drives it; says which, where and since when.
    """
    path = root / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_one(path, "another kchain drives this chain"):
        yield


@contextmanager
def only_one(path: Path, taken: str) -> Iterator[None]:
    """Be the only process that holds the lock `path`.

    Raises:
        DriverLocked: another one does: `taken`, and which, where and since when.
    """
    with path.open("a+", encoding="utf-8") as file:
        try:
            _acquire(file)
        except OSError:
            raise DriverLocked(
                f"{taken}: {_holder(file)}",
                "wait for it, or stop it with Ctrl-C; nothing is lost",
            ) from None
        try:
            _sign(file)
            yield
        finally:
            _release(file)


def _sign(file: IO[str]) -> None:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    file.seek(0)
    file.truncate()
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, file)
    file.flush()


def _holder(file: IO[str]) -> str:
    file.seek(0)
    try:
        holder = json.loads(file.read())
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "it has only just started"


if sys.platform == "win32":
    import msvcrt

    def _acquire(file: IO[str]) -> None:
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

    def _release(file: IO[str]) -> None:
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _acquire(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _release(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
