"""What `[training]` leaves open with "auto" is settled, with the reasons, from the model, the machine and the data."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace

from kchain.phases.chain import Phase
from kchain.phases.choosing import LENGTH_STEP, Choice, choose
from kchain.phases.data import Data
from kchain.phases.memory import Setting
from kchain.phases.models import Shape
from kchain.phases.schema import Lora, Settled, Training
from kchain.phases.speed import step_seconds
from kchain.units import pace

# Words of `[training]` -> words of a Setting.
WORDS = {
    "batch": "batch",
    "checkpointing": "checkpointing",
    "quantization": "quantization",
    "max_length": "length",
}
# A run is ended at twice step_seconds, so at six times the estimate: it is to stop what hangs, not what is slow.
GENEROUS = 3.0
# Never less than the usual: an estimate of a fast step is the least sure one.
LEAST_SECONDS = 5.0
# The keys that may say "auto".
OPEN = frozenset({*WORDS, "step_seconds"})
# Where nothing is known of the model: no run of use takes so long.
UNKNOWN_SECONDS = 60.0
# English text has about 4 characters a token, code 3.
CHARACTERS = 3.5
# Examples are much shorter than the cap that is set for the longest: a guess, said to be one.
SHARE_OF_LENGTH = 4
SHORTEST = 64
# No length beyond this is chosen for a single long example.
LONGEST = 8192


def defaults(wanted: Training) -> Settled:
    """`[training]` with the usual values where it says "auto"."""
    usual = {**Training().model_dump(), "step_seconds": UNKNOWN_SECONDS}
    open_keys = {key for key in OPEN if getattr(wanted, key) is None}
    return Settled(**{**wanted.model_dump(), **{key: usual[key] for key in open_keys}})


def settle(phase: Phase, shape: Shape | None, files: Mapping[str, str]) -> Phase:
    """The phase with every "auto" of its `[training]` chosen.

    Args:
        shape: of the base model, None where it is not known: the usual values are taken.
        files: text of the project's own JSONL files.
    """
    free = {WORDS[key] for key in WORDS if getattr(phase.wanted, key) is None}
    training = phase.training
    lengths = known_lengths(phase.data, files)
    setting = setting_of(phase, shape)
    if setting is None:
        unknown = f"{', '.join(sorted(free))}: the usual values, as kchain does not know the model's shape"
        return replace(phase, choices=(unknown,) if free else ())
    reasons: tuple[str, ...] = ()
    if "length" in free:
        setting, reasons = _length(setting, lengths)
    tokens, _ = example_tokens(lengths, setting.length)
    choice = choose(setting, free, phase.accelerator, tokens)
    training = _with(training, choice)
    reasons += choice.reasons
    if phase.wanted.step_seconds is None:
        seconds = step_seconds(choice.setting, phase.accelerator, tokens)
        generous = round(max(LEAST_SECONDS, GENEROUS * seconds), 1)
        training = training.model_copy(update={"step_seconds": generous})
        reasons += (f"step_seconds {generous:g}: {GENEROUS:g} times the estimate of {pace(seconds)}",)
    return replace(phase, training=training, choices=reasons)


def _length(setting: Setting, lengths: list[int]) -> tuple[Setting, tuple[str, ...]]:
    """The length that the data needs, as far as it is known."""
    if not lengths:
        return setting, (f"length {setting.length:,}: as usual, since nobody has counted the data",)
    length = min(LONGEST, LENGTH_STEP * math.ceil(max(lengths) / LENGTH_STEP))
    reason = f"length {length:,}: the longest example of the project's files has about {max(lengths):,} tokens"
    return replace(setting, length=length), (reason,)


def _with(training: Settled, choice: Choice) -> Settled:
    found = choice.setting
    return training.model_copy(
        update={
            "batch": found.batch,
            "accumulation": found.accumulation,
            "checkpointing": found.checkpointing,
            "quantization": found.quantization,
            "max_length": found.length,
        }
    )


def setting_of(phase: Phase, shape: Shape | None) -> Setting | None:
    """What decides the memory of a step; None where the shape is not known, or has no such targets."""
    if shape is None or shape.chosen(phase.lora.targets) is None:
        return None
    return make_setting(shape, phase.precision, phase.lora, phase.training, len(phase.tokens.all))


def make_setting(shape: Shape, precision: str, lora: Lora, training: Settled, rows: int) -> Setting:
    """A setting from the tables of a chain."""
    return Setting(
        shape=shape,
        precision=precision,
        quantization=training.quantization,
        batch=training.batch,
        accumulation=training.accumulation,
        length=training.max_length,
        rank=lora.r,
        targets=lora.targets,
        optimizer=training.optimizer,
        checkpointing=training.checkpointing,
        rows=rows,
    )


def known_lengths(data: Data, files: Mapping[str, str]) -> list[int]:
    """About how many tokens each example has, where all of them stand in files of the project; else nothing."""
    if any(source.kind != "project" for source in data.sources):
        return []
    rows = [row for source in data.sources for row in files.get(source.file or "", "").split("\n")]
    return [math.ceil(_characters(json.loads(row)) / CHARACTERS) for row in rows if row.strip()]


def _characters(value: object) -> int:
    """Characters of all texts and numbers of a row, its keys not counted."""
    if isinstance(value, dict):
        return sum(_characters(item) for item in value.values())
    if isinstance(value, list):
        return sum(_characters(item) for item in value)
    return len(str(value))


def example_tokens(lengths: list[int], longest: int) -> tuple[float, str]:
    """Tokens of an example on average, and where the figure comes from."""
    if lengths:
        mean = sum(min(length, longest) for length in lengths) / len(lengths)
        return mean, f"of examples of about {mean:.0f} tokens, counted in the project's files"
    guess = min(longest, max(SHORTEST, longest // SHARE_OF_LENGTH))
    return guess, f"of examples of {guess:,} tokens, a guess: a quarter of max_length"
