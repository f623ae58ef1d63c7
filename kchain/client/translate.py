"""The one place where foreign errors become kchain's: by type and status first, by fields next, by words last.

Everything below the client (kaggle, kagglesdk, requests, urllib3) raises what it likes, a `SystemExit` included; what
leaves `foreign_errors` is always a `KchainError` without a secret in its text.
"""

from __future__ import annotations

import email.utils
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import requests
import urllib3.exceptions
from pydantic import BaseModel, Field, ValidationError

from kchain.client.answers import Told
from kchain.client.refusals import LOOK, Absent, Declined, Throttled, conflict, redact
from kchain.errors import Ambiguous, CredentialsError, InputError, KchainError, PushRefused, Unreachable

# The target's name in every text, where it is the real one.
KAGGLE = "kaggle.com"

_REPEAT = "check the network, then repeat the command: nothing is lost"
_LOGIN = (
    "make a new API token in the account's settings, or use `kaggle auth login`; kchain doctor says which credentials "
    "are used"
)
_KEY_FILE = "KCHAIN_KEY_FILE must name that server's key file, which `kchain serve` prints; kchain doctor says more"
_SERVE = "repeat the command: nothing is lost; for a URL target, see that `kchain serve` runs there"
# Status of a refused push -> what to do.
_CURES = {
    400: "the notebook may be over Kaggle's 1 MiB of source, or a field is wrong: kchain lint says more",
    403: "these credentials may not do this: check `owner` in kchain.toml against the account (kchain doctor)",
    404: "the target does not know this notebook or its owner: check `owner` in kchain.toml",
    413: "the notebook is too large: attach large project files as a Kaggle data set",
}


class Answered(requests.HTTPError):
    """The target answered with an error.

    Attributes:
        status: the HTTP status, or the `code` of the body where that is the error.
        words: the target's own message, "" where the body carries none.
        spoken: whether the body has the API's error shape; a proxy's page has not.
        retry_after: seconds of a Retry-After header.
    """

    def __init__(self, status: int, words: str, spoken: bool, retry_after: float | None) -> None:
        super().__init__(f"HTTP {status}: {words}")
        self.status = status
        self.words = words
        self.spoken = spoken
        self.retry_after = retry_after


class _Error(BaseModel):
    """What an error body tells, at its top or in its `error`."""

    code: Told[Annotated[int, Field(strict=True)]] = None
    message: Told[Annotated[str, Field(strict=True)]] = None


class _Body(_Error):
    error: Told[_Error | Annotated[str, Field(strict=True)]] = None


@dataclass(frozen=True)
class Call:
    """What is being done, for the texts of its errors.

    Attributes:
        who: the target, for a person.
        doing: the action and its object: "the status of ada/phase-1".
        sent: for a request with an effect: whether it has left; None for a read.
        secrets: values that must not be shown.
    """

    who: str
    doing: str
    sent: Callable[[], bool] | None = None
    secrets: tuple[str, ...] = ()


@contextmanager
def foreign_errors(call: Call) -> Iterator[None]:
    """Turn whatever the libraries raise into a kchain error.

    Raises:
        CredentialsError, RateLimited, Absent, PushRefused and their like: a definite answer of the target.
        Ambiguous: a request with an effect left, and no answer tells whether it took effect.
        Unreachable: everything else that is the other side's.
    """
    try:
        yield
    except KchainError:
        raise
    except Answered as error:
        raise _answered(error, call) from error
    except requests.exceptions.InvalidJSONError as error:
        raise _nonsense("no JSON", call) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise _lost(error, call) from error
    except SystemExit as error:
        raise _nonsense(f"Kaggle's client ended the program (exit {error.code})", call) from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _nonsense(f"{type(error).__name__}: {error}", call) from error
    except OSError as error:
        raise _here(error, call) from error


def read_error(status: int, headers: Any, body: bytes) -> Answered | None:
    """The error an answer carries, or None.

    Args:
        status: HTTP status.
        headers: the answer's headers.
        body: the whole body; only a JSON object is looked into.
    """
    try:
        found = _Body.model_validate_json(body)
    except ValidationError:
        found = _Body()
    said = found.error if isinstance(found.error, _Error) else found
    code = said.code if said.code is not None and said.code >= 400 else None
    if status < 400 and code is None:
        return None
    words = said.message or (found.error if isinstance(found.error, str) else "")
    retry_after = _seconds(headers.get("Retry-After"))
    return Answered(status if status >= 400 else code or status, words, bool(words) or code is not None, retry_after)


def _seconds(value: str | None) -> float | None:
    """Retry-After in seconds from now: a number or an HTTP date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _answered(error: Answered, call: Call) -> KchainError:
    words = redact(error.words, call.secrets)
    said = f": {words}" if words else ""
    status = error.status
    if status == 401:
        cure = _LOGIN if call.who == KAGGLE else _KEY_FILE
        return CredentialsError(f"{call.who} does not accept the credentials (401, {call.doing}){said}", cure)
    if status == 429:
        when = f"in {error.retry_after:.0f} s" if error.retry_after is not None else "in some minutes"
        return Throttled(
            f"{call.who} was asked too often (429, {call.doing}){said}", f"repeat {when}", error.retry_after
        )
    if status >= 500 or status == 408 or not error.spoken:
        if not said and status < 500 and not error.spoken:
            said = ": not an answer of Kaggle's API; a proxy or another server?"
        return _unclear(f"{call.who} failed with {status} ({call.doing}){said}", call)
    if status == 409:
        return conflict(words, call.doing)
    if call.sent is not None:
        return PushRefused(f"{call.doing} was refused ({status}){said}", _CURES.get(status, "kchain lint says more"))
    if status in (403, 404):
        return Absent(
            f"{call.who} says {status} for {call.doing}{said}",
            "it does not exist, or these credentials may not see it: check the owner and the name",
            status,
            words,
        )
    return Declined(
        f"{call.who} answered {status} ({call.doing}){said}", "the request itself is at fault; kchain doctor"
    )


def _lost(error: Exception, call: Call) -> KchainError:
    """The error for an answer that never came, or broke off."""
    what = _what_broke(error, call)
    if call.sent is None or not call.sent() or never_left(error):
        return Unreachable(f"{call.who} cannot be reached ({call.doing}): {what}", _repeat(call))
    return _unclear(f"{call.who} did not answer to the end ({call.doing}): {what}", call)


def _what_broke(error: Exception, call: Call) -> str:
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "it stayed silent"
    if isinstance(error, requests.TooManyRedirects):
        return "it sends elsewhere; a proxy or a login page?"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no secure connection: {redact(str(error), call.secrets)}"
    if isinstance(error, requests.ConnectionError) and never_left(error):
        return "no connection"
    return redact(f"{type(error).__name__}: {error}", call.secrets)


def never_left(error: BaseException) -> bool:
    """Whether a request failed before a byte of it could reach the target."""
    if isinstance(error, requests.ConnectTimeout | requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return True
    before = (
        urllib3.exceptions.NewConnectionError,
        urllib3.exceptions.ConnectTimeoutError,
        ssl.SSLCertVerificationError,
    )
    return any(isinstance(cause, before) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it wraps: requests keeps urllib3's in `args`, urllib3 its own in `reason`."""
    waiting: list[Any] = [error]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop()
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            waiting += [*current.args, getattr(current, "reason", None)]


def _nonsense(what: str, call: Call) -> KchainError:
    """The error for an answer that cannot be read; before anything was sent, the input is what is wrong."""
    if call.sent is not None and not call.sent():
        return InputError(f"{call.doing} cannot be sent: {redact(what, call.secrets)}", "kchain lint says more")
    return _unclear(f"{call.who} answered what kchain cannot read ({call.doing}): {redact(what, call.secrets)}", call)


def _here(error: OSError, call: Call) -> KchainError:
    """The error for a file or disk of this machine; once something was sent, that comes first."""
    said = redact(str(error), call.secrets)
    if call.sent is not None and call.sent():
        return _unclear(f"{call.doing} was interrupted: {said}", call)
    return InputError(f"{call.doing}: {said}", "check the permissions of the file, or free disk space")


def _unclear(message: str, call: Call) -> KchainError:
    if call.sent is not None and call.sent():
        return Ambiguous(message, LOOK)
    return Unreachable(message, _repeat(call))


def _repeat(call: Call) -> str:
    return _REPEAT if call.who == KAGGLE else _SERVE
