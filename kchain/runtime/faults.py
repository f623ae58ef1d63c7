"""What can be wrong with an example, fault by fault: pure functions of its text."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

from .examples import Example, text
from .lots import normalized

# Marks of chat templates and prompt formats that belong to the template, never into the text itself.
LEAKED = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|start_header_id|end_header_id|system|user|assistant|end)\|>"
    r"|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>"
    r"|^\s*###\s*(?:Instruction|Response|Input|Human|Assistant|User)\s*:",
    re.MULTILINE,
)
_NUMBER = re.compile(r"[-+]?[\d., \u00a0\u202f]*\d[\d.,]*\s*%?")
_SENTENCE = re.compile(r"[.!?…。！？][\"'”’)\]]*\s")
LONG = 200  # characters from which an answer is judged as prose
SAME = 5  # times in a row that something is said, to be a loop ...
PERIOD = 60  # ... of at most so many characters
LOOP = 20  # characters that a loop has at least
SQUEEZED = 0.08  # of its size is left of a text that says one thing over and over, when zlib has packed it
QUOTED = 0.8  # share of the prompt that an answer must hold to be copied from it
LEAST_COPY = 20  # characters of a prompt that can be copied


def pairs(example: Example) -> list[tuple[str, str]]:
    """(what was said before, answer) of every answer of an example; a plain text answers nothing."""
    if "text" in example:
        return [("", text(example["text"]))]
    found, said = [], ""
    for turn in example["messages"]:
        if turn["role"] == "assistant":
            found.append((said, text(turn["content"])))
        elif turn["role"] != "system":
            said = text(turn["content"])
    return found


def asked(example: Example) -> str:
    """Everything that the user says in an example, normalized; empty for a plain text."""
    turns = example.get("messages", ())
    return normalized(" \0 ".join(text(turn["content"]) for turn in turns if turn["role"] == "user"))


def is_bare_number(answer: str) -> bool:
    """A number and nothing else: "0", "1.", "12 %"."""
    return len(answer) < 40 and _NUMBER.fullmatch(answer.strip()) is not None


def is_truncated(answer: str) -> bool:
    """It ends inside a code block, or in the middle of a sentence of prose that is otherwise made of sentences."""
    ended = answer.rstrip()
    if ended.count("```") % 2:
        return True
    if len(ended) < LONG or "```" in ended or len(_SENTENCE.findall(ended)) < 2:
        return False
    last = ended.rpartition("\n")[2]
    in_prose = len(last.split()) >= 8  # not a list's item, a heading, a name below a letter
    return in_prose and (ended[-1].isalnum() or ended[-1] in ",;(-–")


def is_loop(answer: str) -> bool:
    """It says the same over and over, at its end or all through."""
    told = " ".join(answer.split())
    if len(told) >= 20 * LOOP and len(zlib.compress(told.encode(), 1)) < SQUEEZED * len(told.encode()):
        return True
    for period in range(1, min(PERIOD, len(told) // SAME) + 1):
        times = max(SAME, -(-LOOP // period))
        end = told[-period:]
        if told.endswith(end * times) and any(character.isalpha() for character in end):
            return True
    return False


def is_copied(prompt: str, answer: str) -> bool:
    """It is the prompt again: all of it, or most of it and nothing else."""
    asked, told = normalized(prompt), normalized(answer)
    if len(asked) < LEAST_COPY:
        return False
    return told.startswith(asked) or (told in asked and len(told) > QUOTED * len(asked))


def leaks(example: Example) -> bool:
    """A mark of a chat template stands in its text."""
    if "text" in example:
        return LEAKED.search(text(example["text"])) is not None
    return any(LEAKED.search(text(turn["content"])) for turn in example["messages"])


def is_out_of_order(roles: Sequence[str]) -> bool:
    """Not: perhaps system, then user, assistant, user, assistant. Tools may answer the assistant."""
    turns = [role for role in roles if role != "tool"]
    spoken = turns[1:] if turns[:1] == ["system"] else turns
    wanted = ["user" if number % 2 == 0 else "assistant" for number in range(len(spoken))]
    # An answer may come twice around what a tool said.
    if "tool" in roles:
        return spoken[:1] != ["user"] or spoken[-1:] != ["assistant"] or "system" in spoken
    return spoken != wanted or len(spoken) % 2 == 1
