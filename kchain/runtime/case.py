"""What a session has to judge: its own validation split, those of earlier phases, and the styles in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import encode, examples
from .chat import Chat
from .encode import IGNORED, Encoded
from .failure import explain
from .splits import Kept, Missing, unusable


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
    return Case(
        own=own,
        earlier=earlier,
        not_judged=[*not_judged, *unreadable],
        goes_on=goes_on,
        styles=_styles(own.examples, reading),
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


def _styles(own: Sequence[Encoded], reading: Reading) -> dict[str, int]:
    """The phase's styles and their ids: those that its sources name, else trained tokens that stand in prompts."""
    if reading.styles:
        return {name: int(reading.tokenizer.convert_tokens_to_ids(name)) for name in reading.styles}
    prompts = {int(number) for example in own for number in example.ids[example.labels == IGNORED]}
    return {name: number for name, number in reading.tokens.items() if number in prompts}
