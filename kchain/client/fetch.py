"""Downloads: streamed next to where they belong, resumed, checked, and only then given their name."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import requests

from kchain.client.refusals import Declined
from kchain.client.target import is_loopback
from kchain.client.translate import Call, foreign_errors, read_error
from kchain.client.transport import Patience
from kchain.errors import InputError, Unreachable
from kchain.files import UnsafeName, put_in_place, safe_join

_PIECE = 1 << 20
# Names that Windows keeps for devices, with any ending.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def place_of(name: str, folder: Path) -> Path:
    """Where a file that the other side calls `name` goes inside `folder`.

    Raises:
        Unreachable: the name would leave the folder, or is not allowed on some system; nothing is written for it.
    """
    strange = any(part == "." or _DEVICES.fullmatch(part) for part in name.split("/")) or name.endswith("/")
    strange = strange or any(character in '\\:*?"<>|' or ord(character) < 32 for character in name)
    try:
        path = safe_join(folder, name)
    except UnsafeName:
        strange = True
    if strange or not path.resolve().is_relative_to(folder.resolve()):
        raise Unreachable(f"the target sent a file name that is not accepted: {name!r}", "nothing was written for it")
    return path


def download(url: str, to: Path, expected_size: int | None = None, patience: Patience | None = None) -> Path:
    """Fetch one file without any key.

    The bytes go to `.NAME.part` beside `to`; a later call resumes where they end, as long as the other side still has
    the very same file (by its ETag or date).

    Args:
        url: signed address; its query is a secret.
        to: path of the finished file.
        expected_size: bytes; None where it is not known.
        patience: time-outs and tries.

    Raises:
        Declined: the address gives no file (it may have expired: ask for a new one).
        Unreachable: it breaks off again and again, or its size is wrong.
        InputError: this machine cannot store it.
    """
    patience = patience or Patience()
    call = Call("the store of the target", f"the download of {to.name}", None, (url,))
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        part = _Part(to)
        while not _fetched(url, part, expected_size, patience, call):
            continue
        part.finish()
    except OSError as error:
        raise InputError(
            f"{to}: cannot be written: {error.strerror or error}",
            "free disk space, or check the permissions of the folder",
        ) from error
    return to


class _Part:
    """The unfinished file, and a note of which remote file its bytes are from."""

    def __init__(self, to: Path) -> None:
        self.to = to
        self.path = to.with_name(f".{to.name}.part")
        self._note = to.with_name(f".{to.name}.part.of")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str | None:
        """What proves that the remote file is unchanged; None: what is here cannot be resumed."""
        return self._note.read_text(encoding="utf-8") or None if self._note.exists() and self.size else None

    def start(self, validator: str | None) -> None:
        self.path.write_bytes(b"")
        self._note.write_text(validator or "", encoding="utf-8")

    def drop(self) -> None:
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Onto the disk, and under its name."""
        put_in_place(self.path, self.to)
        self._note.unlink(missing_ok=True)


def _fetched(url: str, part: _Part, expected: int | None, patience: Patience, call: Call) -> bool:
    """Whether the file is whole; False where patience ended, but not before some more bytes had come."""
    before = part.size
    try:
        patience.insist(lambda: _attempt(url, part, expected, patience, call))
    except Unreachable as error:
        if isinstance(error, Declined) or part.size <= before:
            raise
        return False
    return True


def _attempt(url: str, part: _Part, expected: int | None, patience: Patience, call: Call) -> None:
    """One connection: everything, or what is missing."""
    validator = part.validator
    offset = part.size if validator else 0
    if validator and offset == expected:
        return
    headers = {"Accept-Encoding": "identity"}
    if validator:
        headers |= {"Range": f"bytes={offset}-", "If-Range": validator}
    with foreign_errors(call), _get(url, headers, patience) as response:
        span = _span(response)
        if response.status_code == 416 or span.start not in (0, offset):
            part.drop()
            raise Unreachable(f"{call.doing}: the other side has another file than before", "repeat the command")
        if response.status_code == 200:
            # A strong ETag, else the date: what If-Range compares (RFC 9110, 13.1.5).
            tag = response.headers.get("ETag", "")
            part.start(tag if tag.startswith('"') else response.headers.get("Last-Modified"))
        _check_size(span.size, expected, part, call)
        # read1 hands over what has arrived; a read of a fixed size would lose up to that much when the line breaks.
        with open(part.path, "ab") as file:
            while piece := response.raw.read1(_PIECE, decode_content=True):
                file.write(piece)
    _check_size(part.size, span.size if expected is None else expected, part, call)


@contextlib.contextmanager
def _get(url: str, headers: dict[str, str], patience: Patience) -> Iterator[requests.Response]:
    with requests.Session() as session:
        session.trust_env = not is_loopback(url)
        with session.get(url, headers=headers, stream=True, timeout=patience.timeout) as response:
            error = read_error(response.status_code, response.headers, b"")
            if error is not None and error.status != 416:
                # No API speaks here: every refusal of a store means that its address is no longer good.
                error.spoken = error.status < 500
                error.status = 403 if error.status == 401 else error.status
                raise error
            yield response


@dataclass(frozen=True)
class _Span:
    """Where the bytes of an answer start, and how many the whole file has (None: not said)."""

    start: int
    size: int | None


def _span(response: requests.Response) -> _Span:
    if response.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if match is None:
            raise ValueError("the answer is a part and does not say which")
        return _Span(int(match[1]), None if match[2] == "*" else int(match[2]))
    length = response.headers.get("Content-Length", "")
    plain = "Content-Encoding" not in response.headers
    return _Span(0, int(length) if length.isdigit() and plain else None)


def _check_size(size: int | None, expected: int | None, part: _Part, call: Call) -> None:
    if size is None or expected is None or size == expected:
        return
    if size > expected:
        part.drop()
    raise Unreachable(
        f"{call.doing}: got {size} bytes, expected {expected}", "repeat the command: it resumes from there"
    )
