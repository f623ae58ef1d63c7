"""What the columns of a file nobody has described probably are. Pure but for reading the first rows."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from kchain.errors import InputError
from kchain.runtime.examples import MISSING, lookup
from kchain.runtime.readers import Broken, rows

LOOKED_AT = 100  # rows that are searched for columns
# Usual names, the likelier ones first.
MESSAGES = ("messages", "conversations", "conversation")
PROMPTS = ("prompt", "instruction", "question", "query", "ask", "task.description", "input")
ANSWERS = ("completion", "response", "output", "answer", "execution.output", "story")
TEXTS = ("text", "content")


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

    def seen(names: tuple[str, ...]) -> str | None:
        return next((name for name in names if any(lookup(row, name) is not MISSING for row in first)), None)

    messages, prompt, answer, text = map(seen, (MESSAGES, PROMPTS, ANSWERS, TEXTS))
    if messages:
        return "conversation", {"messages": messages}
    if prompt and answer:
        more = {"context": "input"} if prompt == "instruction" and _has(first, "input") else {}
        return "prompt_completion", {"prompt": prompt, "completion": answer, **more}
    if text:
        return "text", {"text": text}
    names = ", ".join(first[0]) if first else "none that can be read"
    raise InputError(
        f"{path}: nothing tells which column is what; its columns: {names}",
        "say it: --field prompt=COLUMN --field completion=COLUMN, or --field messages=COLUMN, or --field text=COLUMN",
    )


def _has(first: list[dict[str, Any]], column: str) -> bool:
    return any(column in row for row in first)
