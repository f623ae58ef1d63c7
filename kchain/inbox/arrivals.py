"""Which files of an inbox are whole: their writers have gone, and their last line is not cut.

`cp`, `scp` and editors write under the final name, so nothing but rest tells that they are done. A file is whole when
size, time and identity have not changed for some seconds of this machine's clock, and its last line has an end: a line
break, or JSON that can be read. `rsync` writes under a name with a dot in front, which is passed over. A file that has
been at rest for ten minutes and still is not whole never will be: it is handed on, and its check says why.
"""

from __future__ import annotations

import gzip
import json
import os
import stat
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kchain.runtime.readers import FOREIGN, GZIP

# Seconds since its last change after which a file that is not whole is given up.
GIVEN_UP = 600.0
SUFFIX = ".jsonl"
_TAIL = 2**16
_LONGEST = 2**26

Signature = tuple[int, int, int]


@dataclass
class _Seen:
    """A file as it was seen last: since when (monotonic seconds), and what was made of it."""

    signature: Signature
    since: float
    fault: str | None = None


class Arrivals:
    """Watches one folder.

    Args:
        still: seconds of rest.
        tell: gets (name, why it is not taken), once for each reason.
    """

    def __init__(self, folder: Path, still: float, tell: Callable[[str, str], None]) -> None:
        self._folder = folder
        self._still = still
        self._tell = tell
        self._seen: dict[str, _Seen] = {}
        self._told: dict[str, str] = {}

    def restless(self) -> list[str]:
        """Names of the files that are still being written, or were not looked at for long enough to say."""
        now = time.monotonic()
        return [name for name, seen in self._seen.items() if now - seen.since < self._still]

    def look(self) -> list[str]:
        """Names of the files that are whole now, oldest first."""
        found: list[tuple[int, str]] = []
        entries = {entry.name: entry for entry in os.scandir(self._folder) if not entry.name.startswith(".")}
        self._seen = {name: seen for name, seen in self._seen.items() if name in entries}
        for name in entries:
            try:
                fault, changed = self._judge(name)
            except FileNotFoundError:
                # Deleted while it waited: whoever did that knows.
                continue
            except OSError as error:
                fault, changed = f"cannot be read: {error.strerror}; it waits until it can", 0
            if fault == "":
                found.append((changed, name))
            elif fault is not None and self._told.get(name) != fault:
                self._told[name] = fault
                self._tell(name if name.isprintable() else ascii(name), fault)
        return [name for _, name in sorted(found)]

    def _judge(self, name: str) -> tuple[str | None, int]:
        """(why the file is not taken, its time): "" where it is; None while it is too early to say."""
        path = self._folder / name
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a link" if stat.S_ISLNK(status.st_mode) else "not a file"
            return f"is {kind}, and ignored: only files are taken", 0
        if not name.isprintable():
            return "has a name that cannot be shown, and is ignored: rename it", 0
        if not name.lower().endswith(SUFFIX):
            return f"is ignored: only *{SUFFIX} is taken", 0
        signature = (status.st_size, status.st_mtime_ns, status.st_ino)
        seen = self._seen.get(name)
        if seen is None or seen.signature != signature:
            self._told.pop(name, None)
            seen = self._seen[name] = _Seen(signature, time.monotonic())
        if time.monotonic() - seen.since < self._still:
            return None, 0
        if seen.fault is None:
            seen.fault = unfinished(path)
        if seen.fault and time.time() - status.st_mtime < GIVEN_UP:
            return f"{seen.fault}; waiting for the rest, for {GIVEN_UP / 60:.0f} minutes", 0
        return "", status.st_mtime_ns


def unfinished(path: Path) -> str:
    """What is missing at the end of a file; empty where it is whole.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        beginning = file.read(6)
        if not beginning:
            return "it is empty"
        if any(beginning.startswith(magic) for magic in FOREIGN):
            # Not text: its check will say so.
            return ""
        if beginning.startswith(GZIP):
            return _unfinished_gzip(path)
        size = file.seek(0, os.SEEK_END)
        tail, at = b"", size
        while b"\n" not in tail.rstrip(b"\n") and at > 0 and len(tail) < _LONGEST:
            at = max(0, at - max(_TAIL, len(tail)))
            file.seek(at)
            tail = file.read(size - at)
    if tail.endswith(b"\n"):
        return ""
    try:
        json.loads(tail.rpartition(b"\n")[2])
    except (ValueError, RecursionError):
        return "its last line is cut"
    return ""


def _unfinished_gzip(path: Path) -> str:
    try:
        with gzip.open(path, "rb") as file:
            while file.read(2**20):
                pass
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return "its gzip ends in the middle"
    return ""
