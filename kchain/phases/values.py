"""Kinds of values that phase files hold, the table that refuses everything else, and the words for a refusal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from pydantic.fields import FieldInfo

from kchain.units import duration

SECONDS = {"s": 1, "m": 60, "h": 3600}


def _duration(value: Any) -> Any:
    """Seconds from `"9h"`, `"90m"` or `"30s"`; anything else is left for pydantic to refuse."""
    if isinstance(value, str):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", value)
        if not match:
            raise ValueError('a duration is a number and a unit: "9h", "90m" or "30s"')
        return int(float(match[1]) * SECONDS[match[2]])
    return value


def one_line(value: str) -> str:
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
# The key may say "auto", which becomes None: kchain chooses, and says why.
AUTO = BeforeValidator(lambda value: None if value == "auto" else value)
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Column = Text | Annotated[tuple[Text, ...], Field(min_length=1)]
Title = Annotated[str, StringConstraints(strip_whitespace=True, min_length=5, max_length=50), AfterValidator(one_line)]
Token = Annotated[str, StringConstraints(pattern=r"^\S+$", max_length=64)]


class Strict(BaseModel):
    """A table that refuses keys it does not know and values of another type, and does not change once read.

    Infinities and NaN are refused too: they have no literal that could stand in a notebook.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, str_max_length=100_000)


# What a value must be, by pydantic's name of the error.
_TYPES = {
    "string_type": 'a text, in "quotes"',
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "tuple_type": "a list, in [brackets]",
    "dict_type": "a table",
    "model_type": "a table",
}
_PATTERNS = {
    NAME: "small letters, digits, - and _, beginning with a letter or digit",
    REF: "owner/name",
    MODEL_REF: "owner/model/framework/variation/version, such as qwen-lm/qwen2.5/transformers/0.5b-instruct/1",
}
# pydantic adds the name of each alternative of `str | int | float | bool` to the place of the error.
_ALTERNATIVES = frozenset({"str", "constrained-str", "int", "float", "bool"})
# The same, of `column | list of columns`.
_COLUMN, _COLUMNS = "constrained-str", "tuple["


def describe(error: ValidationError, table: type[BaseModel]) -> list[str]:
    """Each error of a file as `key: what is wrong; what is allowed`, without those that only follow from others."""
    problems = error.errors()
    # A list whose items are wrong counts as too short besides.
    above = {problem["loc"][:depth] for problem in problems for depth in range(len(problem["loc"]))}
    texts = [
        _describe(problem, table)
        for problem in problems
        if problem["type"] != "too_short" or problem["loc"] not in above
        if not _is_other_way(problem)
    ]
    return list(dict.fromkeys(texts))


def _is_other_way(problem: Mapping[str, Any]) -> bool:
    """Whether the error is of the alternative that was not meant: of one column where a list stands, or the reverse."""
    last, is_list = str(problem["loc"][-1]) if problem["loc"] else "", isinstance(problem["input"], tuple)
    return (last == _COLUMN and is_list) or (last.startswith(_COLUMNS) and not is_list)


def _describe(problem: Mapping[str, Any], table: type[BaseModel]) -> str:
    path = [str(part) for part in problem["loc"]]
    for end, part in enumerate(path):
        if part.startswith((_COLUMN, _COLUMNS)) and (path[end - 1] == "column" or path[end - 2] == "fields"):
            return f"{'.'.join(path[:end])}: a column, or a list of columns; found {problem['input']!r:.80}"
    if path and path[-1] in _ALTERNATIVES:
        return f"{'.'.join(path[:-1])}: a text, a number, true or false; found {problem['input']!r:.80}"
    key = ".".join(path) or "the file"
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "extra_forbidden":
        within = _field_at(table, path[:-1])
        keys = getattr(_table_in(within.annotation) if within else table, "model_fields", {}) if path else {}
        allowed = list(keys) if within or len(path) == 1 else []
        return f"{key}: unknown key" + (f"; allowed here: {', '.join(allowed)}" if allowed else "")
    if kind == "missing":
        return f"{key}: missing"
    if kind in _TYPES:
        field = _field_at(table, path)
        or_auto = ', or "auto"' if field is not None and AUTO in field.metadata else ""
        return f"{key}: {_TYPES[kind]}{or_auto}; found {problem['input']!r:.80}"
    if kind == "string_pattern_mismatch" and context.get("pattern") in _PATTERNS:
        return f"{key}: {_PATTERNS[context['pattern']]}; found {problem['input']!r:.80}"
    if path[-1:] == ["session_timeout"] and ("le" in context or "ge" in context):
        limit = f"at most {duration(context['le'] / 3600)}" if "le" in context else f"at least {context['ge']} s"
        return f"{key}: {limit}; found {duration(problem['input'] / 3600)} (a number without a unit is seconds)"
    message = str(problem["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return f"{key}: {context.get('error', message)}"
    return f"{key}: {message[0].lower()}{message[1:]}; found {problem['input']!r:.80}"


def _field_at(table: type[BaseModel], path: list[str]) -> FieldInfo | None:
    """The field that a path of keys leads to, from a table at the top; None where there is none, and for no path."""
    current: Any = table
    field: FieldInfo | None = None
    for part in path:
        if not part.isdigit():
            field = getattr(current, "model_fields", {}).get(part)
            current = _table_in(field.annotation) if field is not None else None
    return field


def _table_in(annotation: Any) -> Any:
    """The model inside `Model | None` or `tuple[Model, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        if (found := _table_in(inner)) is not None:
            return found
    return None
