"""A user name and what proves it, ready to be put on a request; and the key of a kchain server."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kchain.errors import CredentialsError

KEY_FILE_VARIABLE = "KCHAIN_KEY_FILE"
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
            KchainError: the token ended and no new one could be had.
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
        raise CredentialsError("a kchain server asks for its key, and there is none", hint)
    try:
        key = Path(name).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not text"
        raise CredentialsError(f"{KEY_FILE_VARIABLE}: {name}: {reason}", hint) from None
    if not key or any(character.isspace() for character in key) or not key.isascii():
        raise CredentialsError(f"{KEY_FILE_VARIABLE}: {name}: holds no key: one word was due", hint)
    return Credentials.key(username, key, f"{KEY_FILE_VARIABLE} ({name})")
