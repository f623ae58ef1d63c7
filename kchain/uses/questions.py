"""The held-out file: one JSON object a line, as questions with what is expected of their answers."""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.errors import InputError
from kchain.runtime.contract import VALIDATION
from kchain.runtime.examples import Unusable, make_example, text
from kchain.uses.report import COMPARING
from kchain.uses.subject import TrainedPhase

# Stands where the file has no answer: a check may look at the answer alone.
_NO_ANSWER = "?"


@dataclass(frozen=True)
class HeldOutQuestion:
    """A conversation that ends with a question, and what its answer is compared with ("" where it is not)."""

    turns: tuple[dict[str, str], ...]
    expected: str


@dataclass(frozen=True)
class HeldOut:
    """A file of questions: sha256 of the whole file, how many it has, and how many lines hold nothing to ask."""

    path: Path
    sha256: str
    held: int
    left_out: int
    asked: tuple[HeldOutQuestion, ...]


def read_questions(
    path: Path, check: str, system: str, limit: int | None, seed: int, *, written: bool = True
) -> HeldOut:
    """The questions of a file.

    A line has `messages` (the last answer is the expected one) or `prompt` and, where the check compares, `completion`;
    `expect` takes its place, such as for a regular expression.

    Args:
        system: put in front where a line has no system prompt.
        limit: at most so many, drawn with the seed, in the file's order.
        written: a person wrote the file for this, and wants to hear of a line that cannot be used; in a validation set,
            which was split off for another purpose, such lines are left out.

    Raises:
        InputError: a line cannot be used, or none; says which and why.
    """
    try:
        content = path.read_bytes()
        lines = content.decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text: {error!s:.100}", "give a JSONL file") from None
    found: list[HeldOutQuestion] = []
    refused: list[InputError] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(_question(path, number, line, check, system))
            except InputError as error:
                refused.append(error)
    if refused and (written or not found):
        raise refused[0]
    if not found:
        raise InputError(
            f"{path}: has no question", "write one JSON object a line, with messages, or prompt and completion"
        )
    asked = found
    if limit is not None and limit < len(found):
        asked = [found[place] for place in sorted(random.Random(seed).sample(range(len(found)), limit))]
    return HeldOut(path, hashlib.sha256(content).hexdigest(), len(found), len(refused), tuple(asked))


def validation_set(subject: TrainedPhase, cure: str) -> Path:
    """The examples that the phase's session held out, as it saved them beside its adapter.

    Raises:
        InputError: it saved none; `cure` is its hint.
    """
    folder = subject.last.folder
    places = [place / VALIDATION for place in (folder.parent, folder)]
    for place in places:
        if place.is_file():
            return place
    raise InputError(f"{places[0]}: the session of {subject.phase} saved no validation set", cure)


def _question(path: Path, number: int, line: str, check: str, system: str) -> HeldOutQuestion:
    try:
        row = json.loads(line)
        if not isinstance(row, dict):
            raise Unusable("is not a JSON object")
        question = _from_messages(row, system) if "messages" in row else _from_prompt(row, system)
        if check in COMPARING and not question.expected.strip():
            raise Unusable(f"has no completion or expect, which the check {check} compares with")
        if check == "regex":
            try:
                re.compile(question.expected)
            except (re.error, OverflowError, RecursionError) as error:
                raise Unusable(f"expects something that is not a regular expression: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: line {number}: {error!s:.200}", "correct the line, or leave it out") from None
    return question


def _from_messages(row: dict[str, Any], system: str) -> HeldOutQuestion:
    turns = make_example({"messages": row["messages"], "system": row.get("system")}, "conversation", system)["messages"]
    last = max(place for place, turn in enumerate(turns) if turn["role"] == "assistant")
    return HeldOutQuestion(tuple(turns[:last]), text(row.get("expect")) or turns[last]["content"])


def _from_prompt(row: dict[str, Any], system: str) -> HeldOutQuestion:
    if "prompt" not in row:
        raise Unusable("has neither messages nor prompt")
    answer = text(row.get("completion"))
    values = {**row, "completion": answer if answer.strip() else _NO_ANSWER}
    turns = make_example(values, "prompt_completion", system)["messages"]
    return HeldOutQuestion(tuple(turns[:-1]), text(row.get("expect")) or answer)
