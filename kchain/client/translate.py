"""The one place where foreign errors become kchain's: by type and status first, by fields next, by words last.

Everything below the client (kaggle, kagglesdk, requests, urllib3) raises what it likes, a `SystemExit` included; what
leaves `foreign_errors` is always a `KchainError` without a secret in its text.
"""

from __future__ import annotations

import email.utils
import json
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import requests
import urllib3.exceptions

from kchain.errors import (
    Ambiguous,
    CredentialsError,
    InputError,
    KchainError,
    NotNow,
    PushRefused,
    QuotaUsedUp,
    RateLimited,
    SessionCap,
    StillRunning,
    Unreachable,
)

# Keys, tokens and signed addresses never stand in a text that kchain shows or stores.

HIDDEN = "[hidden]"
_LONGEST = 600

# What looks like a secret wherever it stands: authorization headers, access tokens (KGAT_...), legacy keys (32 hex
# digits, unlike the 40 and 64 of the hashes kchain shows), the query of an address, `"key": "..."` and its like.
_PATTERNS = (
    (re.compile(r"\b(Basic|Bearer)\s+[A-Za-z0-9+/=_.~-]{6,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"\bKG[A-Z]{2}_[A-Za-z0-9_-]+"), HIDDEN),
    (re.compile(r"(https?://[^\s?#\"'<>]+)[?#][^\s\"'<>)]*"), rf"\1?{HIDDEN}"),
    (re.compile(r"(https?://)[^\s/@\"'<>]+@"), rf"\1{HIDDEN}@"),
    (re.compile(r"(/[^\s?\"'<>]*\?)[^\s\"'<>)]*=[^\s\"'<>)]*"), rf"\1{HIDDEN}"),
    (
        re.compile(
            r"([\"']?\b(?:key|api_?key|token|\w+_token|password|secret)\b[\"']?\s*[:=]\s*)[\"']?[^\s\"',}]{6,}[\"']?",
            re.I,
        ),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{32}(?![0-9A-Za-z])", re.IGNORECASE), HIDDEN),
)


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` without anything secret, in one short line.

    Args:
        text: words of the other side, or of an exception.
        secrets: values that must not stand there, known exactly.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


# What a target means when it refuses a push in words: one table from its words to errors and their cure.


@dataclass(frozen=True)
class _Words:
    """One way a refusal is worded, what it is, and what to do about it."""

    pattern: re.Pattern[str]
    error: type[KchainError]
    cure: str


def _words(pattern: str, error: type[KchainError], cure: str) -> _Words:
    return _Words(re.compile(pattern, re.IGNORECASE), error, cure)


_TITLE_IN_USE = (
    "another notebook of yours has this title: change `title` in the phase file, then render and review again"
)
_TITLE_MOVED = "a notebook keeps its address, and the title must make it: give the phase its old title again"
_DATASET = "a new data set takes minutes to become ready: wait until its page says so, then repeat the command"
_RUNNING = "wait for the running version to end (kchain watch does), then repeat the command"

# SaveKernel says these with HTTP 200 and a non-empty `error` (kaggle.md section 5), or, the last ones, beside a 409.
_REFUSALS = (
    _words(
        r"maximum .*session count|session (cap|limit)|too many (active|running|concurrent) sessions",
        SessionCap,
        "wait until a session of the account ends; a stopped one may count for some minutes more",
    ),
    _words(
        r"(weekly|gpu|tpu|accelerator) .*quota|quota .*(reached|exceeded|used up)",
        QuotaUsedUp,
        "the hours come back at the weekly refresh, Saturday 00:00 UTC; kchain doctor shows what is left",
    ),
    _words(
        r"database|deadlock|(concurrent|conflicting) (update|save|write)",
        Ambiguous,
        "something else saved this notebook at the same moment; the same command looks what is there and goes on",
    ),
    _words(
        r"phone|verif(y|ied|ication)",
        PushRefused,
        "verify the phone number in the account's settings: without it there is no GPU and no internet",
    ),
    _words(r"already[_ ]exists|title .*(in use|taken|exists)|slug .*(in use|taken|exists)", PushRefused, _TITLE_IN_USE),
    _words(r"title .*slug|slug .*title", PushRefused, _TITLE_MOVED),
    _words(r"data ?set.*(process|ready|pending|persist)|(process|ready|pending).*data ?set", NotNow, _DATASET),
    _words(r"(already|currently|still|is) (running|queued|in progress)|running version", StillRunning, _RUNNING),
    _words(
        r"(kernel|notebook) not found|does not exist|not found",
        PushRefused,
        "check `owner` in kchain.toml against the account of the credentials (kchain doctor does)",
    ),
    _words(
        r"too (large|big|long)|exceeds .*(size|limit|bytes|mib|mb)|1 ?mi?b",
        PushRefused,
        "the notebook is over Kaggle's 1 MiB of source: attach large project files as a Kaggle data set",
    ),
)

_ANY_CONFLICT = (
    "causes known for a 409: the title gives another address than `id` (kchain lint finds it); the title is used by "
    "another notebook of yours (change it); the address belongs to another account (check `owner`); an attached data "
    "set is still being processed (wait); a version is running (wait)"
)


def refusal(words: str, doing: str) -> KchainError:
    """The error for a refusal that came with HTTP 200."""
    return _find(words, doing) or PushRefused(
        f"{doing} was refused: {words}", "change what it names, then review again"
    )


def conflict(words: str, doing: str) -> KchainError:
    """The error for HTTP 409; every cause ever reported stands in the hint where the words do not tell."""
    found = _find(words, doing)
    if found is None:
        return PushRefused(f"{doing} met a conflict (409): {words or 'no reason given'}", _ANY_CONFLICT)
    return found


def _find(words: str, doing: str) -> KchainError | None:
    for row in _REFUSALS:
        if row.pattern.search(words):
            return row.error(f"{doing} was refused: {words}", row.cure)
    return None


# The target's name in every text, where it is the real one.
KAGGLE = "kaggle.com"

_REPEAT = "check the network, then repeat the command: nothing is lost"
_LOOK = "the same command looks what happened before it acts again"
_LOGIN = (
    "make a new API token in the account's settings, or use `kaggle auth login`; kchain doctor says which credentials "
    "are used"
)
_KEY_FILE = "KCHAIN_KEY_FILE must name that server's key file, which `kchain serve` prints; kchain doctor says more"
_SERVE = "repeat the command: nothing is lost; for a URL target, see that `kchain serve` runs there"


class Declined(Unreachable):
    """A definite no to a question; asking again gives the same."""


class Absent(Declined):
    """The target itself says 403 or 404, in its own `words`: no such thing, or not this user's to see."""

    def __init__(self, message: str, hint: str, status: int, words: str) -> None:
        super().__init__(message, hint)
        self.status = status
        self.words = words


class Throttled(RateLimited):
    """429, with the seconds after which the target wants to be asked again (None: it did not say)."""

    def __init__(self, message: str, hint: str, retry_after: float | None) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


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
    fields = _object(body)
    error = fields.get("error")
    nested = error if isinstance(error, dict) else fields
    code = nested.get("code")
    is_code = isinstance(code, int) and not isinstance(code, bool) and code >= 400
    if status < 400 and not is_code:
        return None
    said = nested.get("message") or (error if isinstance(error, str) else "")
    words = said if isinstance(said, str) else ""
    spoken = bool(words) or is_code
    return Answered(
        status if status >= 400 or not isinstance(code, int) else code,
        words,
        spoken,
        _seconds(headers.get("Retry-After")),
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


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
        return CredentialsError(f"{call.who} does not accept the credentials (401, {call.doing}){said}", _login(call))
    if status == 429:
        when = f"in {error.retry_after:.0f} s" if error.retry_after is not None else "in some minutes"
        return Throttled(
            f"{call.who} was asked too often (429, {call.doing}){said}", f"repeat {when}", error.retry_after
        )
    if status >= 500 or status == 408 or not error.spoken:
        return _unclear(f"{call.who} failed with {status} ({call.doing}){said or _foreign(error)}", call)
    if status == 409:
        return conflict(words, call.doing)
    if call.sent is not None:
        return _refused(status, said, call)
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


def _foreign(error: Answered) -> str:
    return "" if error.spoken or error.status >= 500 else ": not an answer of Kaggle's API; a proxy or another server?"


def _refused(status: int, said: str, call: Call) -> KchainError:
    cures = {
        400: "the notebook may be over Kaggle's 1 MiB of source, or a field is wrong: kchain lint says more",
        403: "these credentials may not do this: check `owner` in kchain.toml against the account (kchain doctor)",
        404: "the target does not know this notebook or its owner: check `owner` in kchain.toml",
        413: "the notebook is too large: attach large project files as a Kaggle data set",
    }
    return PushRefused(f"{call.doing} was refused ({status}){said}", cures.get(status, "kchain lint says more"))


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
    return InputError(f"{call.doing}: {said}", "mend the file, or free disk space")


def _unclear(message: str, call: Call) -> KchainError:
    if call.sent is not None and call.sent():
        return Ambiguous(message, _LOOK)
    return Unreachable(message, _repeat(call))


def _login(call: Call) -> str:
    return _LOGIN if call.who == KAGGLE else _KEY_FILE


def _repeat(call: Call) -> str:
    return _REPEAT if call.who == KAGGLE else _SERVE
