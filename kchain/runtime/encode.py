"""Examples become token ids and labels. What is learned is told by where it stands, never by which id it has.

The pad token is the EOS token, so masking by id would hide every real EOS and the model would never learn to stop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .examples import Example
from .failure import Stop

IGNORED = -100  # the label that torch's cross entropy leaves out
SHOWN = 400  # characters of an example that are printed


@dataclass(frozen=True)
class Encoded:
    """Token ids and labels of one example: two int32 arrays of the same length; IGNORED where nothing is learned."""

    ids: np.ndarray[Any, np.dtype[np.int32]]
    labels: np.ndarray[Any, np.dtype[np.int32]]

    def __len__(self) -> int:
        return len(self.ids)


def encode_all(examples: list[Example], tokenizer: Any, max_length: int) -> tuple[list[Encoded], int, int]:
    """Encodes examples: (encoded, how many were truncated, how many were dropped as nothing was left to learn)."""
    encoded: list[Encoded] = []
    truncated = dropped = 0
    for example in examples:
        whole = encode(example, tokenizer)
        cut = Encoded(whole.ids[:max_length], whole.labels[:max_length])
        truncated += len(whole) > max_length
        if (cut.labels[1:] != IGNORED).any():  # the first token has nothing before it to be predicted from
            encoded.append(cut)
        else:
            dropped += 1
    return encoded, truncated, dropped


def encode(example: Example, tokenizer: Any) -> Encoded:
    """One example at full length. Each part is tokenized by itself, as generation will see it: prompt, then answer."""
    ids: list[int] = []
    labels: list[int] = []
    for part, learned in _parts(example, tokenizer):
        tokens = tokenizer.encode(part, add_special_tokens=False)
        ids += tokens
        labels += tokens if learned else [IGNORED] * len(tokens)
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


def _parts(example: Example, tokenizer: Any) -> Iterator[tuple[str, bool]]:
    """The pieces of an example, and whether each is learned; an answer carries its EOS."""
    if "text" in example:
        yield example["text"] + tokenizer.eos_token, True
        return
    turns, done = example["messages"], ""
    for number, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        prompt = _render(tokenizer, turns[:number], True)
        whole = _render(tokenizer, turns[: number + 1], False)
        answer, eos, _ = whole[len(prompt) :].rpartition(tokenizer.eos_token)
        if not (prompt.startswith(done) and whole.startswith(prompt) and eos):
            raise Stop(
                f"the chat template does not write turn by turn, each answer ended by {tokenizer.eos_token}",
                "use a model whose template is plain ChatML, set model.eos_token, or use single-turn examples",
            )
        yield prompt[len(done) :], False
        yield answer + eos, True
        done = prompt + answer + eos


def _render(tokenizer: Any, turns: list[dict[str, str]], generate: bool) -> str:
    return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=generate))
