"""What a target says no with, as errors and in words that may be shown.

Light: whoever only wants to catch a refusal needs nothing of `requests`. `translate` makes these out of what came.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kchain.errors import (
    Ambiguous,
    KchainError,
    NotNow,
    PushRefused,
    QuotaUsedUp,
    RateLimited,
    SessionCap,
    StillRunning,
    Unreachable,
)

# What helps where an effect may or may not have happened.
LOOK = "repeat the command: it looks at what happened before it acts again"


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
        "something else saved this notebook at the same moment; repeat the command: it looks at what is there first",
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
