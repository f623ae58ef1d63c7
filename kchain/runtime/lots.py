"""Which rows of a source count, and which examples are drawn: chance that is made of content.

Every example draws its lot from what it says. So the same seed draws the same examples whatever their order, an example
stays on its side of the split when others are added, duplicates meet (they draw the same lot), and drawing k of a
million needs room for k.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .examples import MISSING, Example, Row, lookup, text

LOTS = 2**64  # a lot is one of so many
_END = " \0 "  # between two texts; blanks, so that white space at their ends makes no difference
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


def normalized(words: str) -> str:
    """A text without what makes no difference: case, white space, compatible characters (NFKC)."""
    if not words.isascii():
        words = unicodedata.normalize("NFKC", words)
    return " ".join(words.casefold().split())


def fingerprint(example: Example, exact: bool = False) -> bytes:
    """16 bytes of all that an example holds: who has them in common is a duplicate; `exact`: to the letter."""
    whole = f"{_said(example)}{_END}{_around(example)}"
    return _digest(whole if exact else normalized(whole))


def said(example: Example) -> bytes:
    """16 bytes of what is said in an example, normalized, without the system prompt: what decides its split."""
    return _digest(normalized(_said(example)))


def _digest(told: str) -> bytes:
    return hashlib.blake2b(told.encode(), digest_size=16).digest()


def _said(example: Example) -> str:
    """Who says what in an example, without the system prompt."""
    if "text" in example:
        return text(example["text"])
    turns = (turn for turn in example["messages"] if turn["role"] != "system")
    return _END.join([f"{turn['role']}{_END}{text(turn['content'])}" for turn in turns])


def _around(example: Example) -> str:
    """The system prompt, and whatever else a recipe puts into an example."""
    more = [example[name] for name in sorted(example) if name not in ("text", "messages")]
    told = [text(turn["content"]) for turn in example.get("messages", ()) if turn["role"] == "system"]
    return _END.join([json.dumps(more, default=str) if more else "", *told])


class Lottery:
    """Draws lots for one purpose: the same purpose and content give the same lot, another purpose an unrelated one."""

    def __init__(self, purpose: str) -> None:
        self._start = hashlib.blake2b(purpose.encode(), digest_size=8)

    def lot(self, fingerprint: bytes) -> int:
        """A number below LOTS."""
        state = self._start.copy()
        state.update(fingerprint)
        return int.from_bytes(state.digest(), "big")


@dataclass(frozen=True, slots=True)
class Entry:
    """An example that was read, and its number among the sources."""

    example: Example
    source: int


class Draw:
    """The `size` entries with the lowest lots among those offered, each content once."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[int, bytes, Entry]] = []  # the highest lot on top
        self._keys: set[bytes] = set()

    def offer(self, lot: int, key: bytes, entry: Entry) -> str | None:
        """Takes an entry, or leaves it out.

        Returns:
            "duplicates": its key is here already. "capped": it, or the one it took the place of, is one too many.
            None: it is here, and nothing was lost.
        """
        if key in self._keys:
            return "duplicates"
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (-lot, key, entry))
            self._keys.add(key)
            return None
        if lot < -self._heap[0][0]:
            _, lost, _ = heapq.heapreplace(self._heap, (-lot, key, entry))
            self._keys.remove(lost)
            self._keys.add(key)
        return "capped"

    def drawn(self) -> list[tuple[bytes, Entry]]:
        """Key and entry of all that were kept, lowest lot first."""
        return [(key, entry) for _, key, entry in sorted(self._heap, key=lambda item: (-item[0], item[1]))]
