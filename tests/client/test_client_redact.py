"""What must never be shown is not shown; what must be readable stays readable."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kchain.client.refusals import HIDDEN, redact

LEGACY = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Basic YWRhOnNlY3JldC1rZXk=", "YWRhOnNlY3JldC1rZXk="),
        ("authorization: bearer abc.def-ghi_jkl", "abc.def-ghi_jkl"),
        ("token KGAT_abcDEF_123 was refused", "KGAT_abcDEF_123"),
        (f"the key {LEGACY} is wrong", LEGACY),
        ("GET https://store.example/out/a.bin?X-Sig=deadbeef&Expires=12", "deadbeef"),
        ("Max retries exceeded with url: /out/a.bin?sig=deadbeef (Caused by X)", "deadbeef"),
        ('{"username": "ada", "key": "hunter2hunter2"}', "hunter2hunter2"),
        ("api_key=hunter2hunter2", "hunter2hunter2"),
        ("https://ada:hunter2@host/x", "hunter2"),
        ("refresh_token: abcdefgh", "abcdefgh"),
    ],
)
def test_secrets_are_hidden(text: str, secret: str) -> None:
    assert secret not in redact(text)
    assert HIDDEN in redact(text)


@pytest.mark.parametrize(
    "text",
    [
        "Maximum batch GPU session count of 2 reached.",
        "Permission 'kernels.get' was denied",
        "sha256 " + "ab" * 32,
        "commit " + "ab" * 20,
        "Dataset ada/data is still being processed.",
        "the pad token is <|im_end|>, the key is missing",
    ],
)
def test_plain_words_stay(text: str) -> None:
    assert redact(text) == text


@given(st.text(string.ascii_letters + string.digits + "+/=_-", min_size=8, max_size=60), st.text(max_size=80))
def test_a_known_secret_is_hidden_wherever_it_stands(secret: str, around: str) -> None:
    assert secret not in redact(f"{around}{secret}{around}", (secret,)).replace(HIDDEN, "")


def test_a_long_page_becomes_one_short_line() -> None:
    assert len(redact("<p>\n" * 10_000)) < 1000
    assert "\n" not in redact("a\nb")
