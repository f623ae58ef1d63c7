"""Who answers: kaggle.com, the server on this machine, or a kchain server at a URL."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from slugify import slugify

from kchain.errors import InputError

KAGGLE = "kaggle"
LOCAL = "local"

# Kaggle's own command is quiet about limits; half a minute stays far away from every 429 that was ever reported.
_KAGGLE_POLL_SECONDS = 30.0
_KAGGLE_SETTLE_SECONDS = 60.0
_SERVER_POLL_SECONDS = 0.5
_SERVER_SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Target:
    """One place that runs notebooks, as one user, for one project.

    Attributes:
        name: "kaggle", "local" or a URL such as "http://127.0.0.1:8765".
        owner: the user name whose kernels these are.
        root: folder of the project; the local server keeps its state in `.kchain/local` there.

    Raises:
        InputError: the name is something else.
    """

    name: str
    owner: str
    root: Path

    def __post_init__(self) -> None:
        if self.name in (KAGGLE, LOCAL):
            return
        try:
            parts = urlsplit(self.name)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            good = False
        if not good or parts.username or parts.query or parts.fragment or parts.path not in ("", "/"):
            raise InputError(
                f"target {self.name!r} is unknown",
                "a target is kaggle, local, or the URL of a kchain server, such as http://127.0.0.1:8765",
            )

    @property
    def is_kaggle(self) -> bool:
        return self.name == KAGGLE

    @property
    def is_url(self) -> bool:
        return self.name not in (KAGGLE, LOCAL)

    @property
    def folder(self) -> str:
        """Name of this target's folders in `build/` and `runs/`."""
        return str(slugify(self.name)) if self.is_url else self.name

    @property
    def local_root(self) -> Path:
        """Where the on-demand server of this project lives."""
        return self.root / ".kchain" / "local"

    @property
    def poll_seconds(self) -> float:
        """Seconds between two looks at a running session."""
        return _KAGGLE_POLL_SECONDS if self.is_kaggle else _SERVER_POLL_SECONDS

    @property
    def settle_seconds(self) -> float:
        """Seconds after a push before an unchanged kernel counts as unchanged."""
        return _KAGGLE_SETTLE_SECONDS if self.is_kaggle else _SERVER_SETTLE_SECONDS


def is_loopback(url: str) -> bool:
    """Whether a URL names this machine itself; such traffic never goes through a proxy."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
