"""Kinds of values that phase files hold, and the table that refuses everything else."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(value: Any) -> Any:
    """Seconds from `"9h"`, `"90m"` or `"30s"`; anything else is left for pydantic to refuse."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", value)
        if not match:
            raise ValueError('a duration is a number and a unit: "9h", "90m" or "30s"')
        return int(float(match[1]) * SECONDS[match[2]])
    return value


def _auto(value: Any) -> Any:
    """None, which no TOML file can hold, for "auto"; anything else is left for pydantic."""
    return None if value == "auto" else value


def one_line(value: str) -> str:
    """The value, if it is one line."""
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("one line, without control characters")
    return value


def _each_once(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)}: name each once")
    return values


NAME = r"^[a-z0-9][a-z0-9_-]*$"
NAME_LENGTH = 40
REF = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"
MODEL_REF = r"^[\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+/\d+$"
DURATION = BeforeValidator(_duration)
EACH_ONCE = AfterValidator(_each_once)
Duration = Annotated[int, DURATION]
Name = Annotated[str, StringConstraints(pattern=NAME, max_length=NAME_LENGTH)]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Ref = Annotated[str, StringConstraints(pattern=REF)]
ModelRef = Annotated[str, StringConstraints(pattern=MODEL_REF)]
# The key may say "auto": kchain chooses, and says why.
AUTO = BeforeValidator(_auto)
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Column = Text | Annotated[tuple[Text, ...], Field(min_length=1)]
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=5, max_length=50), AfterValidator(one_line)]
Token = Annotated[str, StringConstraints(pattern=r"^\S+$", max_length=64)]


class Strict(BaseModel):
    """A table that refuses keys it does not know and values of another type, and does not change once read.

    Infinities and NaN are refused too: they have no literal that could stand in a notebook.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, str_max_length=100_000)
