"""What is wrong with a bundle, as every check tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Rule:
    """A thing that goes wrong on Kaggle.

    Attributes:
        id: KC and three digits; it never changes its meaning.
        reason: why it goes wrong.
        cure: what to do about it.
    """

    id: str
    severity: Severity
    reason: str
    cure: str


@dataclass(frozen=True)
class Problem:
    """One place in `kernel-metadata.json` that breaks a rule.

    Attributes:
        key: the key, or several joined by commas.
        message: what is wrong there.
    """

    rule: Rule
    key: str
    message: str
