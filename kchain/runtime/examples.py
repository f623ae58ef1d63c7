"""One row becomes one example: `{"text": ...}` or `{"messages": [{"role", "content"}, ...]}`.

An example with a style has it in its text already, and once more as `"style"`, to be told by.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
Example = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
# What ShareGPT's turns, {"from", "value"}, call them; other words are taken as they are.
SHAREGPT = {"human": "user", "gpt": "assistant"}
MISSING = object()


class Unusable(ValueError):
    """Why a row gives no example."""


def text(value: Any) -> str:
    """A value as text: text as it is, nothing as "", anything else as JSON. Half a surrogate pair becomes "?"."""
    if value is None or value is MISSING:
        return ""
    told = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return told if told.isascii() else told.encode("utf-8", "replace").decode("utf-8")


def lookup(row: Row, column: str) -> Any:
    """The value of a column; dots reach into nested objects. MISSING where there is none."""
    if column in row:
        return row[column]
    value: Any = row
    for part in column.split("."):
        if not isinstance(value, dict) or part not in value:
            return MISSING
        value = value[part]
    return value


def make_example(values: dict[str, Any], recipe: str, system_prompt: str) -> Example:
    """An example from the fields of a recipe; the system prompt is put in front where there is none.

    Raises:
        Unusable: a field is empty or has the wrong shape.
    """
    style = text(values.get("style")).strip()
    if recipe == "text":
        return _styled({"text": _filled(values, "text")}, style)
    turns = _turns(values["messages"]) if "messages" in values else _pair(values)
    system = text(values.get("system")) or system_prompt
    if system and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": system})
    if turns[0]["role"] == "assistant":  # no chat template can write the prompt of such an answer
        raise Unusable("begins with an answer, and there is no system prompt to answer to")
    return _styled({"messages": turns}, style)


def has_system_prompt(example: Example, system_prompt: str) -> bool:
    """Whether an example begins with this system prompt: put there, or its own."""
    turns = example.get("messages") or [None]
    return bool(system_prompt) and turns[0] == {"role": "system", "content": system_prompt}


def styles(examples: Sequence[Example]) -> list[str]:
    """Every style that the examples have."""
    return sorted({example["style"] for example in examples if "style" in example})


def _styled(example: Example, style: str) -> Example:
    """The example with its style in front of whatever asks for an answer: every user's turn, or the text itself."""
    if not style:
        return example
    if "text" in example:
        return {"text": f"{style} {example['text']}", "style": style}
    turns = [
        {**turn, "content": f"{style} {turn['content']}"} if turn["role"] == "user" else turn
        for turn in example["messages"]
    ]
    return {"messages": turns, "style": style}


def _filled(values: dict[str, Any], field: str) -> str:
    value = text(values[field])
    if not value.strip():
        raise Unusable(f"{field} is empty")
    return value


def _pair(values: dict[str, Any]) -> list[dict[str, str]]:
    prompt = _filled(values, "prompt")
    context = text(values.get("context")).strip()
    if context:
        prompt = f"{prompt}\n\n{context}"
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": _filled(values, "completion")}]


def _turns(messages: Any) -> list[dict[str, str]]:
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        raise Unusable("messages is not a list of objects")
    turns = [_turn(turn) for turn in messages]
    if not any(turn["role"] == "assistant" and turn["content"].strip() for turn in turns):
        raise Unusable("nothing that the assistant says")
    return turns


def _turn(turn: dict[str, Any]) -> dict[str, str]:
    """A turn as {"role", "content"}, also one of ShareGPT's."""
    shared = "role" not in turn and "from" in turn
    who, said = ("from", "value") if shared else ("role", "content")
    role = text(turn.get(who))
    role = SHAREGPT.get(role, role) if shared else role
    if role not in ROLES:
        raise Unusable(f"unknown {who} {role!r}")
    if turn.get("tool_calls") or turn.get("function_call"):
        raise Unusable("a turn calls a tool, which cannot be learned as text; write calls as text, or leave it out")
    return {"role": role, "content": _content(turn.get(said))}


def _content(value: Any) -> str:
    """What a turn says: typed parts as the text they hold, anything else that is not text as JSON."""
    if not isinstance(value, list) or not all(isinstance(part, dict) and "type" in part for part in value):
        return text(value)
    other = next((part["type"] for part in value if part["type"] != "text"), None)
    if other is not None:
        raise Unusable(f"a part of a message is {other}; only text is learned")
    return "".join(text(part.get("text")) for part in value)
