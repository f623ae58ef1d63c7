"""How an answer is drawn, and what each style changes about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn.

    Attributes:
        max_tokens: tokens of an answer, at most.
        temperature: 0: always the likeliest token.
        top_p: draw from the likeliest tokens that have this share together.
        repetition_penalty: above 1: what was said already becomes less likely.
        seed: the same seed draws the same answer.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0


# What each style changes, by its token: some of the keys of Sampling.
Styles = Mapping[str, Mapping[str, Any]]


def sampling_for(style: str | None, styles: Styles, typed: Mapping[str, Any]) -> Sampling:
    """What holds for a style: what was typed, then what its table says, then the defaults.

    Args:
        styles: by token; that of "" counts where there is no style, and for styles that have no table.
        typed: settings that were given on the command line; None for those that were not.
    """
    table = {key: value for key, value in styles.get(style or "", styles.get("", {})).items() if value is not None}
    given = {key: value for key, value in typed.items() if value is not None}
    return replace(Sampling(), **(table | given))
