"""What a session has to judge (its case), and the answers that it looks at.

The case: its own validation split, those of earlier phases, and the styles in them. Answers are drawn greedily to
prompts of the validation split, a batch at a time, each to its own end.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import torch
from transformers import GenerationConfig

from . import encode, examples
from .chat import Chat
from .encode import IGNORED, Encoded
from .failure import explain, out_of_memory
from .splits import Kept, Missing, unusable

Ids = list[int]
# Answers at a time, at least: they need far less memory than training, and one by one they take as many times longer.
TOGETHER = 8


@dataclass(frozen=True)
class Split:
    """Encoded examples that a phase kept aside."""

    phase: str
    examples: list[Encoded]


@dataclass(frozen=True)
class Case:
    """What is judged, and how far.

    Attributes:
        own: the split of this phase; it may be empty.
        earlier: those of earlier phases; `not_judged` names others.
        goes_on: this session is not the run's last: only what its result must have is looked at.
        styles: names and ids of the phase's style tokens.
        questions, tokens: prompts that are answered, and tokens of an answer, at most.
        batch: examples at a time.
        deadline: time.monotonic() at which judging must be over.
    """

    own: Split
    earlier: Sequence[Split]
    not_judged: Sequence[Missing]
    goes_on: bool
    styles: Mapping[str, int]
    questions: int
    tokens: int
    batch: int
    deadline: float


@dataclass(frozen=True)
class Reading:
    """How a phase reads its examples.

    Attributes:
        tokens: names and ids of the tokens whose rows it trains.
        styles: names of the styles that its examples have.
    """

    tokenizer: Any
    tokens: Mapping[str, int]
    styles: Sequence[str]


def build(
    parameters: dict[str, Any],
    reading: Reading,
    own: Split,
    found: tuple[list[Kept], list[Missing]],
    *,
    goes_on: bool,
    batch: int,
    deadline: float,
) -> Case:
    """The case of a session; `found` as `splits.find` gives it."""
    wanted, (kept, not_judged) = parameters["samples"], found
    earlier, unreadable = _encode(kept, reading, parameters["training"]["max_length"])
    if reading.styles:
        styles = {name: int(reading.tokenizer.convert_tokens_to_ids(name)) for name in reading.styles}
    else:  # trained tokens that stand in prompts
        prompts = {int(number) for example in own.examples for number in example.ids[example.labels == IGNORED]}
        styles = {name: number for name, number in reading.tokens.items() if number in prompts}
    return Case(
        own=own,
        earlier=earlier,
        not_judged=[*not_judged, *unreadable],
        goes_on=goes_on,
        styles=styles,
        questions=wanted["count"],
        tokens=wanted["tokens"],
        batch=batch,
        deadline=deadline,
    )


def _encode(kept: Sequence[Kept], reading: Reading, max_length: int) -> tuple[list[Split], list[Missing]]:
    """Earlier phases' splits as this phase reads them, and those that it cannot read."""
    found: list[Split] = []
    without: list[Missing] = []
    for one in kept:
        try:
            chat = Chat(reading.tokenizer, {*reading.tokens, *reading.styles, *examples.styles(one.examples)})
            encoded = encode.encode_all(one.examples, chat, max_length).examples
            reason = "" if encoded else f"no example has anything to learn within {max_length} tokens"
        except Exception as error:  # whatever is the matter with it, this phase is trained, and is judged
            encoded, reason = [], explain(error)[0]
        if encoded:
            found.append(Split(one.phase, encoded))
        else:
            without.append(unusable(one.phase, reason))
    return found, without


class Late(Exception):
    """There is no time left for an answer."""


@dataclass(frozen=True)
class Question:
    """A prompt, and the answer that the example gives to it, with its end."""

    prompt: Ids
    expected: Ids


@dataclass(frozen=True)
class DrawnAnswer:
    """New tokens, the one that ends the answer included; `ended`: there is one."""

    ids: Ids
    ended: bool


@dataclass(frozen=True)
class Drawing:
    """How answers are drawn.

    Attributes:
        ends: ids that end an answer; the first one pads.
        tokens: of an answer, at most.
        batch: answers at a time.
        deadline: time.monotonic() at which it must be over.
    """

    ends: Sequence[int]
    tokens: int
    batch: int
    deadline: float


def questions(examples: Sequence[Encoded], ends: Collection[int], tokens: int) -> list[Question]:
    """A question of every example; first those whose answer ends within half of `tokens`.

    Of the others nobody could tell whether an answer that is still going on would have ended by itself.
    """
    asked = [_question(example) for example in examples]
    return sorted(asked, key=lambda one: one.expected[-1] not in ends or len(one.expected) > tokens // 2)


def styled(asked: Sequence[Question], styles: Collection[int]) -> list[Question]:
    """Those that have a style in their prompt: one of each style, then another one of each."""
    groups = [[one for one in asked if next((i for i in one.prompt if i in styles), None) == style] for style in styles]
    return [one for one in chain.from_iterable(zip_longest(*groups)) if one is not None]


def in_style(prompt: Ids, styles: Collection[int], style: int) -> Ids:
    """The prompt with this style in place of any other."""
    return [style if number in styles else number for number in prompt]


def answers(model: Any, prompts: Sequence[Ids], how: Drawing) -> list[DrawnAnswer]:
    """One answer to each prompt; where memory runs out, half as many at a time.

    Args:
        model: a causal language model, with whatever adapters are in it.

    Raises:
        Late: the time is over.
    """
    made: list[DrawnAnswer] = []
    size = how.batch
    while len(made) < len(prompts):
        try:
            made += _draw(model, prompts[len(made) : len(made) + size], how)
        except Exception as error:
            if size == 1 or not out_of_memory(error):
                raise
            size //= 2
    return made


@torch.no_grad()
def _draw(model: Any, prompts: Sequence[Ids], how: Drawing) -> list[DrawnAnswer]:
    """Answers to prompts of any lengths: padded on the left, so that each goes on where it ends."""
    left = how.deadline - time.monotonic()
    if left <= 0:
        raise Late
    longest = max(map(len, prompts))
    ids = torch.tensor([[how.ends[0]] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    plain = {"pad_token_id": how.ends[0], "eos_token_id": list(how.ends), "do_sample": False, "use_cache": True}
    # As the model's own too: what a base brings (penalties, temperatures) must not fill in what is left out here.
    model.generation_config = config = GenerationConfig(  # type: ignore[no-untyped-call,unused-ignore]
        **plain, max_new_tokens=how.tokens, max_time=left
    )
    made = model.generate(
        input_ids=ids.to(model.device), attention_mask=mask.to(model.device), generation_config=config
    )
    drawn = [_answer(row, how.ends) for row in made[:, longest:].tolist()]
    if any(not one.ended and len(one.ids) < how.tokens for one in drawn):
        raise Late
    return drawn


def _answer(new: Ids, ends: Collection[int]) -> DrawnAnswer:
    """New tokens up to the first end; what stands behind it is padding."""
    end = next((place for place, number in enumerate(new) if number in ends), None)
    return DrawnAnswer(new if end is None else new[: end + 1], end is not None)


def _question(example: Encoded) -> Question:
    """The last answer of an example, to all that stands before it; of text that is all learned, its second half."""
    ids = example.ids.tolist()
    begin, end = list(_spans(example))[-1]
    begin = begin or end // 2
    return Question(ids[:begin], ids[begin:end])


def _spans(example: Encoded) -> Iterator[tuple[int, int]]:
    """Where what is learned begins and ends, one answer after the other."""
    learned = (example.labels != IGNORED).tolist()
    begin = 0
    for place, now in enumerate([*learned, False]):
        before = place > 0 and learned[place - 1]
        if now and not before:
            begin = place
        elif before and not now:
            yield begin, place
