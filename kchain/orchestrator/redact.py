"""Keys, tokens and signed addresses never stand in a text that kchain shows or stores."""

from __future__ import annotations

import re

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
