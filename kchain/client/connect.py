"""From a target to an open transport: its address and the credentials for it, and never those of another."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

from kchain.client import sdk
from kchain.client.answers import FreshToken, TokenOwner
from kchain.client.login import (
    HOW,
    KEY_FILE_VARIABLE,
    Asking,
    Credentials,
    Login,
    Surroundings,
    Token,
    find_login,
    read_key_file,
)
from kchain.client.refusals import Declined
from kchain.client.target import Target
from kchain.client.translate import KAGGLE
from kchain.client.transport import KAGGLE_API, Patience, Transport
from kchain.errors import CredentialsError

# What Kaggle's own client asks for; Kaggle gives one to three hours.
_WANTED = timedelta(hours=12)
# A server on one's own machine, or near it.
_NEAR = Patience(connect=5.0, silence=60.0, attempts=4, first=0.2, longest=5.0, total=30.0)


def find_kaggle_login(patience: Patience, around: Surroundings | None = None, base: str = KAGGLE_API) -> Login:
    """The user's Kaggle credentials; `base` is where tokens are asked about.

    Raises:
        CredentialsError: none that work.
        Unreachable: Kaggle does not answer.
    """
    keyless = Transport(base, KAGGLE, None, patience)
    ask = Asking(lambda token: _owner_of(keyless, token), lambda refresh: _fresh(keyless, refresh))
    return find_login(around or Surroundings.here(), ask)


def _owner_of(keyless: Transport, token: str) -> str | None:
    try:
        found = keyless.read(TokenOwner, "the owner of an access token", "oauth", "IntrospectToken", token=token)
    except (CredentialsError, Declined):
        return None
    return found.username if found.active else None


def _fresh(keyless: Transport, refresh: str) -> Token:
    asked: dict[str, Any] = {
        "refresh_token": refresh,
        "api_version": sdk.message("accounts", "ApiVersion").API_VERSION_V1,
        "expiration_duration": _WANTED,
    }
    try:
        found = keyless.read(FreshToken, "a new access token", "accounts", "GenerateAccessToken", **asked)
    except (CredentialsError, Declined) as error:
        raise CredentialsError(f"the login of `kaggle auth login` has ended: {error.message}", HOW) from error
    return Token(found.token, time.time() + found.expires_in)


def open_transport(target: Target, patience: Patience | None = None) -> Transport:
    """A transport to the target as its owner.

    Raises:
        CredentialsError: no credentials for this target, or another account's.
        Unreachable: Kaggle or the local server cannot be asked.
    """
    if target.is_kaggle:
        credentials = find_kaggle_login(patience or Patience()).credentials
        if credentials.username.lower() != target.owner.lower():
            raise CredentialsError(
                f"the credentials in {credentials.where} are {credentials.username}'s, "
                f"the chain's owner is {target.owner}",
                "put the account's name into `owner` in kchain.toml, or use the owner's credentials",
            )
        return kaggle_transport(credentials, patience or Patience())
    if target.is_url:
        credentials = read_key_file(os.environ.get(KEY_FILE_VARIABLE), target.owner)
        return server_transport(target.name, credentials, patience or _NEAR)
    from kchain.server.launch import ensure_running

    endpoint = ensure_running(target.local_root)
    credentials = Credentials.key(target.owner, endpoint.key, "the local server of this project")
    return server_transport(endpoint.url, credentials, patience or _NEAR)


def server_transport(url: str, credentials: Credentials, patience: Patience) -> Transport:
    """A transport to a kchain server: its API lies below /api, as that of Kaggle's own test servers does."""
    url = url.rstrip("/").lower()  # as requests writes a host; a server's address has no path
    return Transport(f"{url}/api", f"the kchain server at {url}", credentials, patience)


def kaggle_transport(credentials: Credentials, patience: Patience) -> Transport:
    return Transport(KAGGLE_API, KAGGLE, credentials, patience)
