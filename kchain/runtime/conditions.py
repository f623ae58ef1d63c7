"""Which rows of a source count: columns with alternatives, and the tests that a `where` entry describes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from .examples import MISSING, Row, lookup, text

LENGTHS = ("min_characters", "max_characters", "min_words", "max_words")


def alternatives(column: str | Sequence[str]) -> tuple[str, ...]:
    """The columns to look in, in order: one name, or a list of names."""
    return (column,) if isinstance(column, str) else tuple(column)


def pick(row: Row, columns: tuple[str, ...]) -> Any:
    """The first of the columns that holds something; else the last one that is there. MISSING where none is."""
    if len(columns) == 1:
        return lookup(row, columns[0])
    there: Any = MISSING
    for column in columns:
        value = lookup(row, column)
        if value is MISSING:
            continue
        there = value
        if value is not None and value != "" and not (isinstance(value, str) and value.isspace()):
            return value
    return there


def condition(spec: dict[str, Any]) -> Callable[[Row], bool]:
    """The test that one `where` entry describes.

    Args:
        spec: {column, equals | any_of | contains | matches | some of LENGTHS, negate}; the column may be a list.
    """
    columns, negate = alternatives(spec["column"]), bool(spec.get("negate"))
    test = _test(spec)

    def holds(row: Row) -> bool:
        return test(text(pick(row, columns))) is not negate

    return holds


def _test(spec: dict[str, Any]) -> Callable[[str], bool]:
    if spec.get("matches") is not None:
        search = re.compile(spec["matches"]).search
        return lambda value: search(value) is not None
    if spec.get("contains"):
        words = [word.casefold() for word in spec["contains"]]
        return lambda value: any(word in folded for folded in (value.casefold(),) for word in words)
    if any(spec.get(name) is not None for name in LENGTHS):
        return _length_test(*(spec.get(name) for name in LENGTHS))
    wanted = [spec["equals"]] if spec.get("equals") is not None else list(spec.get("any_of") or ())
    texts = {text(value) for value in wanted}  # a CSV has "1" where JSON has 1
    return lambda value: value in texts


def _length_test(
    min_characters: int | None, max_characters: int | None, min_words: int | None, max_words: int | None
) -> Callable[[str], bool]:
    def fits(value: str) -> bool:
        if not _between(len(value), min_characters, max_characters):
            return False
        return (min_words is None and max_words is None) or _between(len(value.split()), min_words, max_words)

    return fits


def _between(number: int, least: int | None, most: int | None) -> bool:
    return (least is None or number >= least) and (most is None or number <= most)
