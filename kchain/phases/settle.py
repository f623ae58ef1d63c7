"""What `[training]` leaves open with "auto" is settled, with the reasons, from the model, the machine and the data."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from kchain.phases.chain import Phase
from kchain.phases.data import Data
from kchain.phases.machines import Accelerator
from kchain.phases.memory import Setting
from kchain.phases.models import Shape
from kchain.phases.schema import Lora, Settled, Training
from kchain.phases.time import step_seconds
from kchain.units import gib, pace

# What a phase leaves to kchain is chosen here: the fastest setting that fits, and why. Tried out, not guessed.

# What is chosen leaves so much of a GPU free, where it can: the plan is not exact (docs/memory-plan.md).
ROOM = 0.1
# Of settings that are as fast as the fastest, give or take this share, the one that takes least memory is chosen.
AS_FAST = 1.05
# Lengths are tried, and proposed, in such steps; shorter than one step is no example.
LENGTH_STEP = 64
FREE = frozenset({"batch", "checkpointing", "quantization", "length"})


@dataclass(frozen=True)
class Choice:
    """A setting with nothing left open.

    Attributes:
        reasons: why each value that was left open is what it is.
    """

    setting: Setting
    reasons: tuple[str, ...]


def choose(setting: Setting, free: Collection[str], machine: Accelerator, tokens: float) -> Choice:
    """Fill in what is free of a setting, whose values there are defaults, and the longest length that is of use.

    Batch x accumulation stays. What costs time alone is tried first, then what costs precision, then what cuts text.
    Where nothing fits, the smallest setting is the choice.

    Args:
        free: among FREE.
        tokens: of an example, on average.

    Raises:
        InputError: a target is no module of the model.
    """
    if not free:
        return Choice(setting, ())
    if not machine.is_gpu:
        return Choice(setting, (f"{_names(free)}: as in a chain without [training]; on a CPU no memory is planned",))
    found = setting
    for group in _groups(setting, free):
        for limit in ((1 - ROOM) * machine.memory, machine.memory):
            fitting = [option for option in group if option.memory.total <= limit]
            if fitting:
                found = _fastest(fitting, machine, tokens)
                return Choice(found, tuple(_reasons(found, setting, free, machine, tokens)))
        found = min(group, key=lambda option: option.memory.total)
    return Choice(found, (f"{_names(free)}: nothing fits; this takes least",))


def _groups(setting: Setting, free: Collection[str]) -> Iterator[list[Setting]]:
    """Settings that differ in speed alone, group by group: the first that has one that fits is taken."""
    lengths = [setting.length]
    if "length" in free:
        lengths += range((setting.length - 1) // LENGTH_STEP * LENGTH_STEP, 0, -LENGTH_STEP)
    for length in lengths:
        for quantization in _quantizations(setting, free, length):
            base = replace(setting, length=length, quantization=quantization)
            yield [
                replace(option, checkpointing=checkpointing)
                for option in (batches(base) if "batch" in free else [base])
                for checkpointing in ((False, True) if "checkpointing" in free else (setting.checkpointing,))
            ]


def _quantizations(setting: Setting, free: Collection[str], length: int) -> list[str]:
    if "quantization" not in free:
        return [setting.quantization]
    # A shorter text in half precision is no better than the whole text in 4 bits.
    return ["none", "nf4"] if length == setting.length else ["nf4"]


def batches(setting: Setting) -> list[Setting]:
    """Every batch that keeps batch x accumulation, the largest first."""
    together = setting.batch * setting.accumulation
    sizes = [size for size in range(together, 0, -1) if together % size == 0]
    return [replace(setting, batch=size, accumulation=together // size) for size in sizes]


def _fastest(options: Collection[Setting], machine: Accelerator, tokens: float) -> Setting:
    seconds = {option: step_seconds(option, machine, tokens) for option in options}
    enough = AS_FAST * min(seconds.values())
    return min((each for each in options if seconds[each] <= enough), key=lambda each: each.memory.total)


def _names(free: Collection[str]) -> str:
    return ", ".join(sorted(free))


def _reasons(
    found: Setting, setting: Setting, free: Collection[str], machine: Accelerator, tokens: float
) -> Iterator[str]:
    together = found.batch * found.accumulation
    seconds = pace(step_seconds(found, machine, tokens))
    if "batch" in free:
        processes = machine.processes(found.accumulation)
        shared = f" on {processes} GPUs" if processes > 1 else ""
        yield (
            f"batch {found.batch} x accumulation {found.accumulation}: {together} examples a step as wanted, "
            f"as fast as any that fits: about {seconds} a step{shared}"
        )
    if "checkpointing" in free:
        other = replace(found, checkpointing=not found.checkpointing)
        takes = gib(other.memory.total)
        if found.checkpointing:
            yield f"checkpointing on: without it a step takes {takes} of {gib(machine.memory)}"
        else:
            yield f"checkpointing off: all activations fit, and nothing is computed twice (with it: {takes})"
    if "quantization" in free:
        if found.quantization == "none":
            yield f"quantization none: the weights fit in {found.precision}, which is more exact than 4 bits"
        else:
            least = min((option.memory.total for option in _least(setting)), default=0)
            yield f"quantization nf4: in {found.precision} a step takes {gib(least)} at least"
    if found.length < setting.length:
        yield f"length {found.length:,}: {setting.length:,} do not fit, even in 4 bits"


def _least(setting: Setting) -> list[Setting]:
    return [replace(each, checkpointing=True, quantization="none") for each in batches(setting)]


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
    if not all(source.kind.travels for source in data.sources):
        return []
    rows = [row for source in data.sources for row in files.get(source.place, "").split("\n")]
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
