"""Examples become token ids and labels. What is learned is told by where it stands, never by which id it has.

The pad token is the EOS token, so masking by id would hide every real EOS and the model would never learn to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .chat import Chat, Refused, Turn
from .examples import Example, has_system_prompt
from .failure import Stop, emit

IGNORED = -100  # the label that torch's cross entropy leaves out
SHOWN = 400  # characters of an example that are printed
# A piece of text, and whether it is learned.
Part = tuple[str, bool]


@dataclass(frozen=True)
class Encoded:
    """Token ids and labels of one example: two int32 arrays of the same length; IGNORED where nothing is learned."""

    ids: np.ndarray[Any, np.dtype[np.int32]]
    labels: np.ndarray[Any, np.dtype[np.int32]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Batch:
    """Encoded examples, and what became of those that are not, or not as they came.

    Attributes:
        truncated: examples longer than the cap, cut with their labels.
        dropped: examples of which nothing to learn was left.
        refused: examples that the chat template does not take.
        reason: the template's words about the first of them.
        controls: examples with a control token typed into a content; it is read as text.
    """

    examples: list[Encoded] = field(default_factory=list)
    truncated: int = 0
    dropped: int = 0
    refused: int = 0
    reason: str = ""
    controls: int = 0

    def counts(self) -> dict[str, int]:
        """The figures, for the result file and the log."""
        return {name: getattr(self, name) for name in ("truncated", "dropped", "refused", "controls")}


def encode_all(examples: list[Example], chat: Chat, max_length: int) -> Batch:
    """Encodes examples, none longer than `max_length` tokens.

    Raises:
        Stop: the chat template cannot be used, or takes none of the examples.
    """
    batch = Batch()
    for example in examples:
        try:
            wholes = encode(example, chat)
        except Refused as error:
            batch.refused += 1
            batch.reason = batch.reason or str(error)
            continue
        batch.controls += chat.has_controls(example.get("messages", []))
        for whole in wholes:
            cut = Encoded(whole.ids[:max_length], whole.labels[:max_length])
            batch.truncated += len(whole) > max_length
            if (cut.labels[1:] != IGNORED).any():  # the first token has nothing before it to be predicted from
                batch.examples.append(cut)
            else:
                batch.dropped += 1
    if examples and batch.refused == len(examples):
        raise Stop(f"the chat template takes none of the examples: {batch.reason}", "correct roles and contents")
    return batch


def encode(example: Example, chat: Chat) -> list[Encoded]:
    """An example at full length, in one piece; in one for each answer where the template writes an answer differently
    once others follow (models that think: earlier thoughts are left out), since that is how generation will see it.

    Each part is tokenized by itself, as generation will see it: prompt, then answer.

    Raises:
        Refused: the chat template does not take its turns.
        Stop: the template writes no turn so that its answer can be told from the rest.
    """
    if "text" in example:
        # Plain text is taken as it is written, control tokens included: it may hold conversations in its own format.
        ids = chat.encode(example["text"] + chat.tokenizer.eos_token)
        begin = [] if ids[:1] == chat.begin else chat.begin  # it may be written already
        return [_encoded([*begin, *ids], [*[IGNORED] * len(begin), *ids])]
    return [_joined(chat, parts) for parts in _pieces(example["messages"], chat)]


def _joined(chat: Chat, parts: Sequence[Part]) -> Encoded:
    """Parts one after the other."""
    ids: list[int] = []
    labels: list[int] = []
    before = ""
    for part, learned in parts:
        tokens = chat.encode(part, before)
        ids += tokens
        labels += tokens if learned else [IGNORED] * len(tokens)
        before = part
    return _encoded(ids, labels)


def _encoded(ids: Sequence[int], labels: Sequence[int]) -> Encoded:
    return Encoded(np.array(ids, dtype=np.int32), np.array(labels, dtype=np.int32))


def describe(encoded: Encoded, tokenizer: Any) -> dict[str, Any]:
    """What a person checks first: how many tokens are masked and learned, the text, and what of it is learned."""
    learned = encoded.ids[encoded.labels != IGNORED]
    return {
        "masked": len(encoded) - len(learned),
        "learned": len(learned),
        "text": tokenizer.decode(encoded.ids.tolist())[:SHOWN],
        "learned_text": tokenizer.decode(learned.tolist())[:SHOWN],
    }


def tell(batch: Batch, examples: list[Example], system_prompt: str) -> None:
    """Says what was put in front of the examples, and what was left out or read otherwise than it looks."""
    carry = sum(has_system_prompt(example, system_prompt) for example in examples)
    emit("system_prompt", text=system_prompt, examples=carry, of=len(examples))
    if batch.refused:
        emit("warning", message=f"{batch.refused} examples left out, the chat template refuses them: {batch.reason}")
    if batch.controls:
        emit("warning", message=f"{batch.controls} examples have control tokens typed into them, read as plain text")


def _pieces(turns: Sequence[Turn], chat: Chat) -> list[list[Part]]:
    """The pieces of a conversation; an answer carries its EOS."""
    eos, done = chat.tokenizer.eos_token, ""
    pieces: list[list[Part]] = [[]]
    for number, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        prompt = chat.render([*turns[:number]], True)
        whole = chat.render([*turns[: number + 1]], False)
        answer, end, _ = whole[len(prompt) :].rpartition(eos)
        if not (whole.startswith(prompt) and end):
            raise Stop(
                f"the chat template does not write an answer behind its prompt, ended by {eos}",
                "use a model whose template is plain ChatML, or set model.eos_token",
            )
        if not prompt.startswith(done):
            pieces.append([])
            done = ""
        pieces[-1] += [(prompt[len(done) :], False), (answer + eos, True)]
        done = prompt + answer + eos
    return pieces
