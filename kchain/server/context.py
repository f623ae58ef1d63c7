"""What every request handler works on: the state, the profile, the session queue, and signed download addresses."""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

from kchain.server.db import Database
from kchain.server.profile import Profile
from kchain.server.sessions import Sessions

_LINK_SECONDS = 6 * 3600


@dataclass(frozen=True)
class Context:
    """The running server.

    Attributes:
        root: its folder.
        key: the key a request must carry.
        key_file: where it is kept.
        user: who the key alone stands for, as an access token without a user name.
        address: "http://host:port", what download and upload addresses begin with.
    """

    root: Path
    key: str
    key_file: Path
    user: str
    address: str
    profile: Profile
    db: Database
    sessions: Sessions

    def page(self, ref: str) -> str:
        """Where a person would look at `ref` on the real service; here a name and no page."""
        return f"{self.address}/{ref}"

    def signed(self, path: str) -> str:
        """An address below /download/ that needs no credentials and ends after some hours.

        Args:
            path: without the leading "/download/", not quoted.
        """
        expires = int(time.time()) + _LINK_SECONDS
        query = urlencode({"expires": expires, "signature": self._signature(path, expires)})
        return f"{self.address}/download/{quote(path)}?{query}"

    def is_signed(self, path: str, expires: str, signature: str) -> bool:
        """Whether an address was made by `signed` and has not ended."""
        if not expires.isdecimal() or int(expires) < time.time():
            return False
        return hmac.compare_digest(self._signature(path, int(expires)).encode(), signature.encode())

    def _signature(self, path: str, expires: int) -> str:
        return hmac.new(self.key.encode(), f"{expires}:{path}".encode(), hashlib.sha256).hexdigest()
