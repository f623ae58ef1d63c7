"""Files sent to a target's store: resumed where they broke off, within one run and, where asked, across runs.

Kaggle's own client has this too. It is not used here: its PUTs have no time-out, it drops a file that failed without a
word and makes the rest a version, and it keeps its notes in a folder that all users of a machine share.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Literal

import requests
from pydantic import BaseModel, TypeAdapter, ValidationError

from kchain import files
from kchain.client import sdk
from kchain.client.answers import UploadStart
from kchain.client.refusals import Declined
from kchain.client.target import is_loopback
from kchain.client.translate import foreign_errors
from kchain.client.transport import Transport
from kchain.errors import InputError, Unreachable
from kchain.runtime.files import hash_file

# A store keeps an unfinished upload for a week (Google's rule for resumable uploads); Kaggle's client trusts six days.
_KEPT_SECONDS = 6 * 24 * 3600
_RANGE = re.compile(r"bytes=0-(\d+)")
_PIECE = 1 << 16


class _Expired(Declined):
    """The store does not know this upload (any more)."""


class _Upload(BaseModel):
    """One that was begun: the token it will have, the address its bytes go to, and since when."""

    token: str
    url: str
    time: float


_UPLOADS = TypeAdapter(dict[str, _Upload])


class Begun:
    """Uploads that were begun, in a file that only its owner can read: their addresses are as good as a key.

    Args:
        path: the file; made at the first `keep`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def find(self, key: str) -> tuple[str, str] | None:
        """(token, address) of an upload that may be resumed."""
        entry = self._read().get(key)
        return None if entry is None else (entry.token, entry.url)

    def keep(self, key: str, token: str, url: str) -> None:
        """Remember an upload, through a crash."""
        self._write(self._read() | {key: _Upload(token=token, url=url, time=time.time())})

    def drop(self, key: str) -> None:
        self._write({other: entry for other, entry in self._read().items() if other != key})

    def is_empty(self) -> bool:
        return not self._read()

    def _read(self) -> dict[str, _Upload]:
        try:
            entries = _UPLOADS.validate_json(self._path.read_bytes())
        except (OSError, ValidationError):
            return {}  # nothing is lost with it but bytes that were sent already
        return {key: entry for key, entry in entries.items() if entry.time > time.time() - _KEPT_SECONDS}

    def _write(self, entries: dict[str, _Upload]) -> None:
        files.write(self._path, _UPLOADS.dump_json(entries), 0o600)


def upload(
    transport: Transport,
    path: Path,
    kind: Literal["DATASET", "MODEL"],
    begun: Begun | None = None,
    reached: Callable[[int], None] = lambda count: None,
) -> str:
    """Send one file; the token by which it becomes part of a data set or model version.

    Args:
        kind: what it will be part of.
        begun: what earlier runs began; the same bytes for the same target are resumed.
        reached: told how many bytes of it have left, first where it begins or resumes.

    Raises:
        Unreachable: it breaks off again and again, or the store refuses it.
        InputError: the file cannot be read.
    """
    key = _key(transport, path, kind) if begun is not None else ""
    known = begun.find(key) if begun is not None else None
    if known is not None:
        # What the store has forgotten is begun anew.
        with suppress(_Expired):
            return _finish(_Sending(transport, path, known[1], False, reached), known[0])
    started = transport.read(
        UploadStart,
        f"the upload of {path.name}",
        "blobs",
        "StartBlobUpload",
        type=sdk.message("blobs", "ApiBlobType")[kind],
        name=path.name,
        content_length=path.stat().st_size,
        last_modified_epoch_seconds=int(path.stat().st_mtime),
    )
    if begun is not None:
        begun.keep(key, started.token, started.create_url)
    return _finish(_Sending(transport, path, started.create_url, True, reached), started.token)


def forget(transport: Transport, paths: list[Path], kind: str, begun: Begun) -> None:
    """Forget finished uploads once a version holds their files: a token is good for one version."""
    if not begun.is_empty():
        for path in paths:
            begun.drop(_key(transport, path, kind))


def _key(transport: Transport, path: Path, kind: str) -> str:
    return f"{transport.base} {kind} {path.name} {hash_file(path)}"


def new_file(token: str) -> Any:
    """An uploaded file as a request for a data set or model version names it."""
    file = sdk.message("datasets", "ApiDatasetNewFile")()
    file.token = token
    return file


def _finish(sending: _Sending, token: str) -> str:
    try:
        while not sending.is_whole():
            continue
    except OSError as error:
        raise InputError(
            f"{sending.path}: cannot be read: {error.strerror or error}", "check the permissions of the file"
        ) from error
    return token


class _Sending:
    """One file on its way to one address.

    Args:
        fresh: nothing was sent to this address yet; else the store is asked how far it got.
        reached: told how many bytes have left.
    """

    def __init__(self, transport: Transport, path: Path, url: str, fresh: bool, reached: Callable[[int], None]) -> None:
        self.path = path
        self._patience = transport.patience
        self._call = transport.call_for(f"the upload of {path.name}")
        self._url, self._fresh, self._tell = url, fresh, reached
        self._size = path.stat().st_size
        self._reached = 0

    def is_whole(self) -> bool:
        """Whether all of it is there; False where patience ended, but not before the store had got further."""
        before = self._reached
        try:
            self._patience.insist(self._attempt)
        except Unreachable as error:
            if isinstance(error, Declined) or self._reached <= before:
                raise
            return False
        return True

    def _attempt(self) -> None:
        """One connection: everything, or what the store has not got yet. An empty file has nothing to go on from."""
        start = 0 if self._fresh or not self._size else self._present()
        self._reached, self._fresh = max(self._reached, start), False
        self._tell(start)
        if start < self._size or not self._size:
            answer = self._put(start)
            if answer.status_code not in (200, 201):
                raise self._unexpected(answer)

    def _present(self) -> int:
        """Bytes that the store has: an empty PUT asks (308 and a Range), as Google's resumable uploads have it."""
        with foreign_errors(self._call), self._session() as session:
            headers = {"Content-Length": "0", "Content-Range": f"bytes */{self._size}"}
            answer = session.put(self._url, headers=headers, timeout=self._patience.timeout)
        if answer.status_code in (200, 201):
            return self._size
        if answer.status_code == 308:
            got = _RANGE.fullmatch(answer.headers.get("Range", ""))
            return int(got[1]) + 1 if got else 0
        raise self._unexpected(answer)

    def _put(self, start: int) -> requests.Response:
        with foreign_errors(self._call), self._session() as session, self.path.open("rb") as file:
            file.seek(start)
            headers = {"Content-Length": str(self._size - start)}
            if start:
                headers["Content-Range"] = f"bytes {start}-{self._size - 1}/{self._size}"
            data = _Told(file, start, self._size, self._tell) if self._size else b""
            return session.put(self._url, data=data, headers=headers, timeout=self._patience.timeout)

    def _session(self) -> requests.Session:
        session = requests.Session()
        session.trust_env = not is_loopback(self._url)
        return session

    def _unexpected(self, answer: requests.Response) -> Unreachable:
        code, doing = answer.status_code, self._call.doing
        if code in (404, 410):
            return _Expired(f"{doing}: the store does not know it any more ({code})", "repeat the command")
        return Unreachable(f"{doing} broke off: the store answered {code}", "repeat the command: it resumes from there")


class _Told:
    """The rest of a file as requests reads it: by length and in pieces; tells how far that is."""

    def __init__(self, file: IO[bytes], start: int, size: int, tell: Callable[[int], None]) -> None:
        self._file, self._at, self._size, self._tell = file, start, size, tell

    def __len__(self) -> int:
        return self._size - self._at

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(_PIECE):
            yield piece

    def read(self, count: int = -1) -> bytes:
        piece = self._file.read(count)
        self._at += len(piece)
        self._tell(self._at)
        return piece
