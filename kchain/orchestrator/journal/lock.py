"""One process at a time: a lock on a file, `.kchain/driver.lock` for the driver of a chain.

The system releases it when the process ends, however it ends, so no stale lock ever needs removing. A file beside it,
`driver.lock.json`, says who holds it.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kchain import files
from kchain.errors import DriverLocked

LOCK = Path(".kchain") / "driver.lock"


@contextmanager
def driver_lock(root: Path) -> Iterator[None]:
    """Be the only driver of the project in `root`.

    Raises:
        DriverLocked: another process drives it; says which, where and since when.
    """
    with only_one(root / LOCK, "another kchain drives this chain"):
        yield


@contextmanager
def only_one(path: Path, taken: str) -> Iterator[None]:
    """Be the only process that holds the lock `path`.

    Raises:
        DriverLocked: another one does: `taken`, and which, where and since when.
    """
    with ExitStack() as held:
        try:
            held.enter_context(files.locked(path, wait=0))
        except BlockingIOError:
            hint = "wait for it, or stop it with Ctrl-C; nothing is lost"
            raise DriverLocked(f"{taken}: {_holder(path)}", hint) from None
        note = note_of(path)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        note.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}), "utf-8")
        held.callback(note.unlink, missing_ok=True)
        yield


def note_of(path: Path) -> Path:
    """Where it says who holds the lock `path`."""
    return path.with_name(f"{path.name}.json")


def _holder(path: Path) -> str:
    try:
        holder = json.loads(note_of(path).read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "it has only just started"
