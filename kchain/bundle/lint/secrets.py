"""Secrets in what would be sent. A finding never repeats the secret."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kchain.bundle.lint.finding import SECRET, Finding, finding
from kchain.bundle.lint.subject import Subject
from kchain.kernel_metadata import METADATA_FILE

# What each kind of secret looks like, as its maker documents it. Lengths keep prose and placeholders out.
_KINDS: dict[str, re.Pattern[str]] = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "a Kaggle token": re.compile(r"\bKGAT_[0-9a-f]{32}\b"),
    "a Kaggle key": re.compile(r"""(?i)kaggle_key\W{1,6}[0-9a-f]{32}\b|["']key["']\s*:\s*["'][0-9a-f]{32}["']"""),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "an AWS secret key": re.compile(r"(?i)aws_secret_access_key\W{1,6}[A-Za-z0-9/+]{40}\b"),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{60,}\b"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{32,}\b|\bAIza[0-9A-Za-z_-]{35}\b"),
    "a Slack token": re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{20,}"),
    "a Weights & Biases key": re.compile(r"(?i)wandb\w*\W{1,20}[0-9a-f]{40}\b"),
}


def secrets(subject: Subject) -> Iterator[Finding]:
    """Every secret in the code, the text and the metadata."""
    places = [*subject.texts, (METADATA_FILE, str(subject.metadata))]
    for where, content in places:
        for kind, pattern in _KINDS.items():
            for match in pattern.finditer(content):
                line = content.count("\n", 0, match.start()) + 1
                yield finding(SECRET, f"{where}, line {line}", f"{kind} ({match[0][:4]}…)")
