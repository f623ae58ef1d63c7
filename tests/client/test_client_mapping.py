"""The one place where foreign errors become kchain's: every kind, before and after something was sent."""

from __future__ import annotations

import ssl
import time
from email.utils import formatdate
from typing import Any

import pytest
import requests
import urllib3.exceptions
from hypothesis import given
from hypothesis import strategies as st

from kchain.client.refusals import Absent, Declined, Throttled, conflict, refusal
from kchain.client.translate import Answered, Call, foreign_errors, never_left, read_error
from kchain.client.transport import Patience
from kchain.errors import (
    Ambiguous,
    CredentialsError,
    InputError,
    KchainError,
    NotNow,
    PushRefused,
    QuotaUsedUp,
    SessionCap,
    Unreachable,
)

READ = Call("kaggle.com", "the status of ada/first-phase")
SENT = Call("kaggle.com", "the push of ada/first-phase", lambda: True)
UNSENT = Call("kaggle.com", "the push of ada/first-phase", lambda: False)


def mapped(error: BaseException, call: Call) -> KchainError:
    with pytest.raises(KchainError) as caught, foreign_errors(call):
        raise error
    return caught.value


def no_connection() -> requests.ConnectionError:
    inner = urllib3.exceptions.NewConnectionError(None, "refused")  # type: ignore[arg-type]
    return requests.ConnectionError(urllib3.exceptions.MaxRetryError(None, "/v1?sig=secret", inner))  # type: ignore


def bad_certificate() -> requests.exceptions.SSLError:
    inner = urllib3.exceptions.SSLError(ssl.SSLCertVerificationError("CERTIFICATE_VERIFY_FAILED"))
    return requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(None, "/v1", inner))  # type: ignore[arg-type]


BROKEN = [
    requests.ConnectionError("reset by peer"),
    requests.ReadTimeout("read timed out"),
    requests.exceptions.ChunkedEncodingError("broken"),
    urllib3.exceptions.ProtocolError("broken"),
    urllib3.exceptions.ReadTimeoutError(None, "/", "silent"),  # type: ignore[arg-type]
    requests.exceptions.SSLError("broken record"),
    requests.TooManyRedirects("elsewhere"),
]
NONSENSE = [
    requests.exceptions.JSONDecodeError("no", "doc", 0),
    ValueError("odd"),
    KeyError("NEW_WORD"),
    TypeError("null list"),
    AttributeError("lower"),
    RecursionError("deep"),
    IndexError("short"),
    SystemExit(1),
]


@pytest.mark.parametrize("error", BROKEN + NONSENSE, ids=lambda error: type(error).__name__)
def test_a_read_that_broke_is_unreachable_and_says_what_was_read(error: BaseException) -> None:
    found = mapped(error, READ)
    assert type(found) is Unreachable
    assert "ada/first-phase" in found.message
    assert found.__cause__ is error


@pytest.mark.parametrize("error", BROKEN + NONSENSE, ids=lambda error: type(error).__name__)
def test_the_same_after_a_push_was_sent_is_ambiguous(error: BaseException) -> None:
    assert type(mapped(error, SENT)) is Ambiguous


@pytest.mark.parametrize("error", NONSENSE, ids=lambda error: type(error).__name__)
def test_the_same_before_anything_was_sent_is_the_inputs_fault(error: BaseException) -> None:
    assert type(mapped(error, UNSENT)) is InputError


@pytest.mark.parametrize(
    "error", [no_connection(), bad_certificate(), requests.ConnectTimeout("x"), requests.exceptions.InvalidURL("x")]
)
def test_what_never_reached_the_target_is_never_ambiguous(error: requests.RequestException) -> None:
    assert never_left(error)
    assert type(mapped(error, SENT)) is Unreachable


@pytest.mark.parametrize("error", BROKEN, ids=lambda error: type(error).__name__)
def test_what_may_have_reached_it_counts_as_left(error: Exception) -> None:
    assert not never_left(error)


def test_a_file_of_this_machine_is_an_input_error_until_something_was_sent() -> None:
    assert type(mapped(PermissionError(13, "Permission denied", "x.json"), READ)) is InputError
    assert type(mapped(OSError(28, "No space left on device"), UNSENT)) is InputError
    assert type(mapped(OSError(5, "I/O error"), SENT)) is Ambiguous


def test_kchains_own_errors_and_a_ctrl_c_pass_unchanged() -> None:
    own = NotNow("later", "wait")
    assert mapped(own, READ) is own
    with pytest.raises(KeyboardInterrupt), foreign_errors(READ):
        raise KeyboardInterrupt


ROWS: list[tuple[int, bool, type[KchainError], type[KchainError]]] = [
    # status, spoken by the API, of a read, of a push that was sent
    (400, True, Declined, PushRefused),
    (401, True, CredentialsError, CredentialsError),
    (401, False, CredentialsError, CredentialsError),
    (403, True, Absent, PushRefused),
    (403, False, Unreachable, Ambiguous),
    (404, True, Absent, PushRefused),
    (404, False, Unreachable, Ambiguous),
    (408, True, Unreachable, Ambiguous),
    (409, True, PushRefused, PushRefused),
    (422, True, Declined, PushRefused),
    (429, False, Throttled, Throttled),
    (500, True, Unreachable, Ambiguous),
    (502, False, Unreachable, Ambiguous),
    (504, True, Unreachable, Ambiguous),
]


@pytest.mark.parametrize(("status", "spoken", "of_read", "of_push"), ROWS)
def test_every_status_by_what_was_done(
    status: int, spoken: bool, of_read: type[KchainError], of_push: type[KchainError]
) -> None:
    answer = Answered(status, "words of the target" if spoken else "", spoken, None)
    for call, due in ((READ, of_read), (SENT, of_push)):
        found = mapped(answer, call)
        assert type(found) is due
        assert str(status) in found.message
        assert found.hint
        assert not spoken or "words of the target" in found.message


def test_an_absence_keeps_what_the_target_said() -> None:
    found = mapped(Answered(404, "No runs found for this kernel.", True, None), READ)
    assert isinstance(found, Absent)
    assert (found.status, found.words) == (404, "No runs found for this kernel.")


@pytest.mark.parametrize(
    ("status", "body", "due"),
    [
        (200, b"{}", None),
        (200, b"not json", None),
        (200, b'{"code": 0}', None),
        (200, b'{"code": 200, "message": "fine"}', None),
        (200, b'{"code": true}', None),
        (200, b'{"error": ""}', None),
        (200, b'{"error": "Maximum batch GPU session count of 2 reached."}', None),
        (200, b'{"code": 429, "message": "TooManyRequests"}', (429, "TooManyRequests", True)),
        (403, b'{"error": {"code": 403, "message": "denied", "status": "X"}}', (403, "denied", True)),
        (404, b'{"code": 404, "message": "gone"}', (404, "gone", True)),
        (404, b'{"error": "gone"}', (404, "gone", True)),
        (404, b'{"code": "404", "message": ["odd"]}', (404, "", False)),
        (403, b"<html>", (403, "", False)),
        (500, b"[1]", (500, "", False)),
        (500, b"[" * 100_000, (500, "", False)),
        (502, b"", (502, "", False)),
    ],
)
def test_errors_are_read_from_every_shape_a_body_has(status: int, body: bytes, due: Any) -> None:
    found = read_error(status, {}, body)
    assert (None if found is None else (found.status, found.words, found.spoken)) == due


@given(st.integers(200, 599), st.binary(max_size=60))
def test_no_body_crashes_the_reading_of_errors(status: int, body: bytes) -> None:
    found = read_error(status, {}, body)
    assert found is None or found.status >= 400


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0", 0.0), (None, None), ("soon", None), ("-3", None), (formatdate(0, usegmt=True), 0.0)],
)
def test_retry_after_in_both_forms(value: str | None, seconds: float | None) -> None:
    headers = {} if value is None else {"Retry-After": value}
    found = read_error(429, headers, b"")
    assert found is not None
    assert found.retry_after == seconds


def test_retry_after_as_a_date_counts_from_now() -> None:
    found = read_error(429, {"Retry-After": formatdate(time.time() + 100, usegmt=True)}, b"")
    assert found is not None
    assert found.retry_after is not None
    assert 0 < found.retry_after <= 101


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("Maximum batch GPU session count of 2 reached.", SessionCap),
        ("Maximum weekly TPU quota of 20.00 hours reached.", QuotaUsedUp),
        ("Notebook not found", PushRefused),
        ("could not serialize access due to concurrent update", Ambiguous),
        ("Dataset ada/x is still being processed.", NotNow),
    ],
)
def test_refusals_in_words(words: str, error: type[KchainError]) -> None:
    for find in (refusal, conflict):
        found = find(words, "the push of ada/first-phase")
        assert type(found) is error
        assert found.hint
        assert words in found.message


def test_unknown_words_are_shown_whole() -> None:
    assert "Frobnication" in refusal("Frobnication is off", "the push").message
    assert "no reason given" in conflict("", "the push").message


class Clock:
    """Counts tries; fails so often, then answers."""

    def __init__(self, *errors: KchainError) -> None:
        self.errors = list(errors)
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


QUICK = Patience(attempts=4, first=0.001, longest=0.05, total=5)


def test_patience_tries_what_may_pass_again() -> None:
    read = Clock(Unreachable("x"), Throttled("x", "", 0.0), Throttled("x", "", None))
    assert QUICK.insist(read) == "answer"
    assert read.tries == 4


@pytest.mark.parametrize(
    "error",
    [
        Ambiguous("x"),
        Declined("x"),
        Absent("x", "", 404, ""),
        CredentialsError("x"),
        PushRefused("x"),
        Throttled("x", "", 3600.0),
    ],
    ids=lambda error: type(error).__name__,
)
def test_patience_never_repeats_what_will_not_pass(error: KchainError) -> None:
    read = Clock(error)
    with pytest.raises(type(error)):
        QUICK.insist(read)
    assert read.tries == 1


def test_patience_ends_with_the_last_error() -> None:
    read = Clock(*(Unreachable(f"error {number}") for number in range(9)))
    with pytest.raises(Unreachable, match="error 3"):
        QUICK.insist(read)
    assert read.tries == 4
