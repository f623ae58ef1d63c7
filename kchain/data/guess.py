"""What the columns of a file nobody has described probably are. Pure but for reading the first rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice
from pathlib import Path

from kchain.errors import InputError
from kchain.runtime.examples import MISSING, lookup
from kchain.runtime.readers import Broken, rows

LOOKED_AT = 100  # rows that are searched for columns
# Usual names, the likelier ones first.
MESSAGES = ("messages", "conversations", "conversation")
PROMPTS = ("prompt", "instruction", "question", "query", "ask", "task.description", "input")
ANSWERS = ("completion", "response", "output", "answer", "execution.output", "story")
TEXTS = ("text", "content")
USUAL = (*MESSAGES, *PROMPTS, *ANSWERS, *TEXTS)


def usual(recipe: str, seen: Collection[str]) -> dict[str, str] | None:
    """field = column by usual names, for a recipe and a file that has these columns; None where they say nothing."""
    found = (way(seen) for way in WAYS[recipe])
    return next((fields for fields in found if fields), None)


def guess(path: Path, given: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """(recipe, field = column) of a file.

    Args:
        given: fields whose columns are known; they decide where they are enough.

    Raises:
        InputError: the columns say nothing; names them.
    """
    if given:
        recipe = "conversation" if "messages" in given else "text" if "text" in given else "prompt_completion"
        return recipe, dict(given)
    first = [row for _, row in islice(rows(path), LOOKED_AT) if not isinstance(row, Broken)]
    seen = {name for name in USUAL if any(lookup(row, name) is not MISSING for row in first)}
    for recipe, way in (("conversation", _messages), ("prompt_completion", _pair), ("text", _text)):
        if fields := way(seen):
            return recipe, fields
    names = ", ".join(first[0]) if first else "none that can be read"
    raise InputError(
        f"{path}: nothing tells which column is what; its columns: {names}",
        "say it: --field prompt=COLUMN --field completion=COLUMN, or --field messages=COLUMN, or --field text=COLUMN",
    )


def _messages(seen: Collection[str]) -> dict[str, str]:
    found = _first(MESSAGES, seen)
    return {"messages": found} if found else {}


def _pair(seen: Collection[str]) -> dict[str, str]:
    prompt, answer = _first(PROMPTS, seen), _first(ANSWERS, seen)
    if not prompt or not answer:
        return {}
    more = {"context": "input"} if prompt == "instruction" and "input" in seen else {}
    return {"prompt": prompt, "completion": answer, **more}


def _text(seen: Collection[str]) -> dict[str, str]:
    found = _first(TEXTS, seen)
    return {"text": found} if found else {}


def _first(names: tuple[str, ...], seen: Collection[str]) -> str | None:
    return next((name for name in names if name in seen), None)


# Recipe -> what its columns may be, the likelier first.
WAYS = {"text": (_text,), "prompt_completion": (_pair,), "conversation": (_messages, _pair)}
