"""From a target to an open transport: its address and the credentials for it, and never those of another."""

from __future__ import annotations

import os

from kchain.errors import CredentialsError
from kchain.orchestrator.credentials import KEY_FILE_VARIABLE, Credentials, read_key_file
from kchain.orchestrator.kaggle_com import find_kaggle_login
from kchain.orchestrator.mapping import KAGGLE
from kchain.orchestrator.patience import Patience
from kchain.orchestrator.target import Target
from kchain.orchestrator.transport import KAGGLE_API, Transport

_NEAR = Patience(connect=5.0, silence=60.0, attempts=4, first=0.2, longest=5.0, total=30.0)


def open_transport(target: Target, patience: Patience | None = None) -> Transport:
    """A transport to the target as its owner.

    Raises:
        CredentialsError: no credentials for this target, or another account's.
        Unreachable: Kaggle or the local server cannot be asked.
    """
    if target.is_kaggle:
        return _to_kaggle(target, patience or Patience())
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


def _to_kaggle(target: Target, patience: Patience) -> Transport:
    credentials = find_kaggle_login(patience).credentials
    if credentials.username.lower() != target.owner.lower():
        raise CredentialsError(
            f"the credentials in {credentials.where} are {credentials.username}'s, the chain's owner is {target.owner}",
            "put the account's name into `owner` in kchain.toml, or use the owner's credentials",
        )
    return kaggle_transport(credentials, patience)


def kaggle_transport(credentials: Credentials, patience: Patience) -> Transport:
    """A transport to kaggle.com."""
    return Transport(KAGGLE_API, KAGGLE, credentials, patience)
