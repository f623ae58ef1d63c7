"""Kaggle's credentials on this machine, in the order Kaggle's own client documents, without its traps.

The order: access token, key, OAuth login. A token that Kaggle no longer accepts is named and passed over, and then is
not sent either; an OAuth token is renewed before it ends; no file is changed, made or deleted. What is found becomes
`Credentials`: a user name and what proves it, ready to be put on a request; so does the key of a kchain server.
"""

from __future__ import annotations

import base64
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from kchain.client.answers import Told, Word
from kchain.errors import CredentialsError

KEY_FILE_VARIABLE = "KCHAIN_KEY_FILE"
HOW = (
    "make an API token in the account's settings on kaggle.com and save it as ~/.kaggle/access_token, "
    "or use `kaggle auth login`"
)
# A token is renewed this long before it ends: longer than any single request may take.
_RENEW_BEFORE_SECONDS = 600.0


@dataclass(frozen=True)
class Token:
    """An access token; `expires` is seconds since the epoch."""

    value: str = field(repr=False)
    expires: float


@dataclass
class Credentials:
    """Who asks, and the proof.

    Attributes:
        username: the account.
        where: where this was found, for people.
        secrets: every value that must never be shown.
    """

    username: str
    where: str
    secrets: tuple[str, ...] = field(repr=False)
    _header: str = field(repr=False)
    _expires: float | None = None
    _fetch: Callable[[], Token] | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @classmethod
    def key(cls, username: str, key: str, where: str) -> Credentials:
        """A user name and a key, as Kaggle's `kaggle.json` and every kchain server know them."""
        pair = base64.b64encode(f"{username}:{key}".encode()).decode()
        return cls(username, where, (key, pair), f"Basic {pair}")

    @classmethod
    def bearer(cls, username: str, token: str, where: str) -> Credentials:
        """An access token that does not end in the time of a command."""
        return cls(username, where, (token,), f"Bearer {token}")

    @classmethod
    def renewing(cls, username: str, token: Token | None, fetch: Callable[[], Token], where: str) -> Credentials:
        """An access token that `fetch` replaces when it is about to end, or is not there at all."""
        found = token or Token("", 0.0)
        return cls(username, where, (found.value,), f"Bearer {found.value}", found.expires, fetch)

    def header(self) -> str:
        """The Authorization header, with a token that is still good.

        Raises:
            KchainError: the token ended and there is no new one.
        """
        with self._lock:
            if self._expires is not None and self._expires - time.time() < _RENEW_BEFORE_SECONDS:
                self._replace()
            return self._header

    def renew(self) -> bool:
        """Replace a token that the target no longer accepts; False where there is nothing to replace."""
        with self._lock:
            if self._fetch is None:
                return False
            self._replace()
            return True

    def _replace(self) -> None:
        assert self._fetch is not None
        token = self._fetch()
        self.secrets = (*self.secrets, token.value)
        self._header, self._expires = f"Bearer {token.value}", token.expires


@dataclass(frozen=True)
class Surroundings:
    """Where credentials may be: the variables, the home folder, and whether the XDG rule holds (Linux)."""

    environ: Mapping[str, str]
    home: Path
    linux: bool

    @classmethod
    def here(cls) -> Surroundings:
        return cls(dict(os.environ), Path.home(), sys.platform.startswith("linux"))

    @property
    def config_folder(self) -> Path:
        """The folder of kaggle.json (the client's rule: KAGGLE_CONFIG_DIR, ~/.kaggle if there, else XDG on Linux)."""
        if named := self.environ.get("KAGGLE_CONFIG_DIR"):
            return Path(named)
        folder = self.home / ".kaggle"
        if folder.exists() or not self.linux:
            return folder
        return Path(self.environ.get("XDG_CONFIG_HOME") or self.home / ".config") / "kaggle"


@dataclass(frozen=True)
class Asking:
    """The two questions that finding credentials may need.

    Attributes:
        owner_of: user name of an access token, None when Kaggle does not accept it.
        fresh: a new access token for an OAuth refresh token.
    """

    owner_of: Callable[[str], str | None]
    fresh: Callable[[str], Token]


@dataclass(frozen=True)
class Login:
    """What was found, and what was passed over on the way (for `kchain doctor`)."""

    credentials: Credentials
    notes: tuple[str, ...]


def find_login(around: Surroundings, ask: Asking) -> Login:
    """The credentials Kaggle's client would use.

    Raises:
        CredentialsError: there are none that work; says what was looked at.
        Unreachable: Kaggle could not be asked about a token.
    """
    notes: list[str] = []
    for find in (_by_token, _by_key, _by_oauth):
        if found := find(around, ask, notes):
            return Login(found, tuple(notes))
    looked = "; ".join(notes) or "no KAGGLE_API_TOKEN, no ~/.kaggle/access_token, no kaggle.json, no OAuth login"
    raise CredentialsError(f"no Kaggle credentials that work: {looked}", HOW)


def user_name(around: Surroundings) -> str | None:
    """The user name in KAGGLE_USERNAME or kaggle.json, None where neither has one. Asks nothing over the network."""
    file = _read_file(_KeyFile, around.config_folder / "kaggle.json", "kaggle.json", [])
    return around.environ.get("KAGGLE_USERNAME", "").strip() or file.username or None


def _by_token(around: Surroundings, ask: Asking, notes: list[str]) -> Credentials | None:
    for token, where in _tokens(around, notes):
        username = ask.owner_of(token)
        if username:
            return Credentials.bearer(username, token, where)
        notes.append(f"{where} holds a token that Kaggle does not accept (any more)")
    return None


def _tokens(around: Surroundings, notes: list[str]) -> Iterator[tuple[str, str]]:
    if "KAGGLE_KERNEL_RUN_TYPE" in around.environ and (name := around.environ.get("KAGGLE_API_V1_TOKEN")):
        yield from _token_file(Path(name), "KAGGLE_API_V1_TOKEN", notes)
    if value := around.environ.get("KAGGLE_API_TOKEN", "").strip():
        if _is_file(value):
            yield from _token_file(Path(value), f"KAGGLE_API_TOKEN ({value})", notes)
        else:
            yield value, "KAGGLE_API_TOKEN"
    for name in ("access_token", "access_token.txt"):
        yield from _token_file(around.home / ".kaggle" / name, f"~/.kaggle/{name}", notes)


def _is_file(name: str) -> bool:
    try:
        return Path(name).is_file()
    except (OSError, ValueError):
        return False


def _token_file(path: Path, where: str, notes: list[str]) -> Iterator[tuple[str, str]]:
    token = _read(path, where, notes).strip()
    if token:
        yield token, where


def _read(path: Path, where: str, notes: list[str]) -> str:
    """The text of a file, "" where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        notes.append(f"{where} cannot be read ({getattr(error, 'strerror', None) or 'not text'})")
        return ""


class _KeyFile(BaseModel):
    """kaggle.json."""

    username: Told[Word] = None
    key: Told[Word] = None


class _OAuthFile(BaseModel):
    """credentials.json of `kaggle auth login`; a time that names no zone is UTC."""

    username: Told[Word] = None
    refresh_token: Told[Word] = None
    access_token: Told[Word] = None
    access_token_expiration: Told[datetime] = None


File = TypeVar("File", _KeyFile, _OAuthFile)


def _read_file(shape: type[File], path: Path, where: str, notes: list[str]) -> File:
    """The JSON object in a file; nothing in it where there is none."""
    text = _read(path, where, notes)
    if text.strip():
        try:
            return shape.model_validate_json(text)
        except ValidationError:
            notes.append(f"{where} is not a JSON object")
    return shape()


def _by_key(around: Surroundings, ask: Asking, notes: list[str]) -> Credentials | None:
    """User name and key: each from its variable, else from kaggle.json."""
    path = around.config_folder / "kaggle.json"
    file = _read_file(_KeyFile, path, str(path), notes)
    username = around.environ.get("KAGGLE_USERNAME") or file.username
    key = around.environ.get("KAGGLE_KEY") or file.key
    if not username or not key:
        return None
    return Credentials.key(username, key, "KAGGLE_KEY" if around.environ.get("KAGGLE_KEY") else str(path))


def _by_oauth(around: Surroundings, ask: Asking, notes: list[str]) -> Credentials | None:
    where = "~/.kaggle/credentials.json"
    file = _read_file(_OAuthFile, around.home / ".kaggle" / "credentials.json", where, notes)
    refresh, expires = file.refresh_token, file.access_token_expiration
    if not refresh or not file.username:
        return None
    token = None
    if file.access_token and expires is not None:
        token = Token(file.access_token, (expires if expires.tzinfo else expires.replace(tzinfo=UTC)).timestamp())
    return Credentials.renewing(file.username, token, lambda: ask.fresh(refresh), where)


def read_key_file(name: str | None, username: str) -> Credentials:
    """The key of a kchain server, from the file that `kchain serve --key-file FILE` made.

    Args:
        name: value of KCHAIN_KEY_FILE; None where it is not set.
        username: whoever holds the key may be any user.

    Raises:
        CredentialsError: no file, or nothing usable in it.
    """
    hint = f"set {KEY_FILE_VARIABLE} to the file that `kchain serve --key-file FILE` made"
    if not name:
        raise CredentialsError("a kchain server asks for its key, and none was given", hint)
    try:
        key = Path(name).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise CredentialsError(f"{KEY_FILE_VARIABLE}: {name}: {reason}", hint) from None
    if not key or any(character.isspace() for character in key) or not key.isascii():
        raise CredentialsError(f"{KEY_FILE_VARIABLE}: {name}: holds no key: expected one word", hint)
    return Credentials.key(username, key, f"{KEY_FILE_VARIABLE} ({name})")
