"""kaggle.com as a target: its address, and what it says about tokens."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

from kchain.errors import CredentialsError, Unreachable
from kchain.orchestrator.credentials import Token
from kchain.orchestrator.login import HOW, Asking, Login, Surroundings, find_login
from kchain.orchestrator.mapping import KAGGLE, Declined
from kchain.orchestrator.patience import Patience
from kchain.orchestrator.transport import KAGGLE_API, Transport

# What Kaggle's own client asks for; Kaggle gives one to three hours.
_WANTED = timedelta(hours=12)


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
        answer = keyless.read("the owner of an access token", "oauth", "IntrospectToken", token=token)
    except (CredentialsError, Declined):
        return None
    name = answer.get("username")
    return name if answer.get("active") is True and isinstance(name, str) and name else None


def _fresh(keyless: Transport, refresh: str) -> Token:
    from kagglesdk.users.types.account_service import ApiVersion

    fields: dict[str, Any] = {
        "refresh_token": refresh,
        "api_version": ApiVersion.API_VERSION_V1,
        "expiration_duration": _WANTED,
    }
    try:
        answer = keyless.read("a new access token", "accounts", "GenerateAccessToken", **fields)
    except (CredentialsError, Declined) as error:
        raise CredentialsError(f"the login of `kaggle auth login` has ended: {error.message}", HOW) from error
    value, seconds = answer.get("token"), answer.get("expiresIn")
    if not isinstance(value, str) or not value or not isinstance(seconds, int | float):
        raise Unreachable("kaggle.com gave no new access token", "repeat the command")
    return Token(value, time.time() + seconds)
