"""What `[training]` leaves open with "auto" is settled, with the reasons, from the model, the machine and the data.

The fastest setting that fits is chosen: settings are tried, not guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kchain.phases.chain import Phase, WrittenPhase
from kchain.phases.data import Data
from kchain.phases.machines import Accelerator
from kchain.phases.memory import Setting
from kchain.phases.models import Shape
from kchain.phases.schema import Precision, SettledTraining, Training
from kchain.phases.time import step_seconds
from kchain.phases.uses import Exporting
from kchain.units import gib, pace

# What is chosen leaves so much of a GPU free, where it can: the plan is not exact (docs/memory-plan.md).
ROOM = 0.1
# Of settings that are as fast as the fastest, give or take this share, the one that takes least memory is chosen.
AS_FAST = 1.05
# Lengths are tried, and proposed, in such steps; shorter than one step there are no examples.
LENGTH_STEP = 64

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
# Where nothing is known of the model: no useful run takes so long.
UNKNOWN_SECONDS = 60.0
# English text has about 4 characters a token, code 3.
CHARACTERS = 3.5
# Examples are much shorter than the cap that is set for the longest: a guess, said to be one.
SHARE_OF_LENGTH = 4
SHORTEST = 64
# No length beyond this is chosen for a single long example.
LONGEST = 8192


def defaults(written: Training, precision: Precision = "fp32") -> SettledTraining:
    """`[training]` with the usual values where it says "auto"."""
    usual = {**Training().model_dump(), "step_seconds": UNKNOWN_SECONDS}
    values = written.model_dump()
    given = {key: usual[key] if value is None and usual[key] is not None else value for key, value in values.items()}
    return SettledTraining(**{**given, "precision": precision})


def settle(phases: tuple[WrittenPhase, ...], shape: Shape | None, files: Mapping[str, str]) -> tuple[Phase, ...]:
    """The phases with every "auto" of their `[training]` chosen; parents stand before their children.

    Args:
        shape: of the base model, None where it is not known: the usual values are taken.
        files: text of the project's own JSONL files.
    """
    done: dict[str, Phase] = {}
    for phase in phases:
        if phase.use is None or phase.after is None:
            done[phase.name] = _settle(phase, shape, files)
            continue
        # A use is one session, with the settings of the phase whose result it uses as they are now.
        changes: dict[str, Any] = {"max_sessions": 1, "precision": phase.precision}
        if isinstance(phase.use, Exporting):
            changes["quantization"] = "none"  # nothing is loaded: files are added up
        done[phase.name] = phase.settled(done[phase.after].training.model_copy(update=changes))
    return tuple(done.values())


def _settle(phase: WrittenPhase, shape: Shape | None, files: Mapping[str, str]) -> Phase:
    training = defaults(phase.training, phase.precision)
    free = {WORDS[key] for key in WORDS if getattr(phase.training, key) is None}
    usual = phase.settled(training)
    setting = setting_of(usual, shape)
    if setting is None:
        unknown = f"{', '.join(sorted(free))}: the usual values, as kchain does not know the model's shape"
        return phase.settled(training, (unknown,) if free else ())
    lengths = known_lengths(phase.data, files)
    reasons: tuple[str, ...] = ()
    if "length" in free:
        reason = f"length {setting.length:,}: the usual value, as the examples are not in the project's files"
        if lengths:
            setting = replace(setting, length=min(LONGEST, LENGTH_STEP * math.ceil(max(lengths) / LENGTH_STEP)))
            longest = f"the longest example of the project's files has about {max(lengths):,} tokens"
            reason = f"length {setting.length:,}: {longest}"
        reasons = (reason,)
    tokens, _ = example_tokens(lengths, setting.length)
    choice = choose(setting, free, phase.accelerator, tokens)
    found: dict[str, Any] = {"accumulation": choice.setting.accumulation}
    found |= {key: getattr(choice.setting, word) for key, word in WORDS.items()}
    reasons += choice.reasons
    if phase.training.step_seconds is None:
        seconds = step_seconds(choice.setting, phase.accelerator, tokens)
        found["step_seconds"] = round(max(LEAST_SECONDS, GENEROUS * seconds), 1)
        reasons += (f"step_seconds {found['step_seconds']:g}: {GENEROUS:g} times the estimate of {pace(seconds)}",)
    return phase.settled(training.model_copy(update=found), reasons)


def setting_of(phase: Phase, shape: Shape | None) -> Setting | None:
    """What decides the memory of a step; None where the shape is not known, or has no such targets."""
    if shape is None or shape.chosen(phase.lora.targets) is None:
        return None
    training = phase.training
    return Setting(
        shape=shape,
        precision=phase.precision,
        quantization=training.quantization,
        batch=training.batch,
        accumulation=training.accumulation,
        length=training.max_length,
        rank=phase.lora.r,
        targets=phase.lora.targets,
        optimizer=training.optimizer,
        checkpointing=training.checkpointing,
        rows=len(phase.tokens.all),
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


@dataclass(frozen=True)
class Choice:
    """A setting with nothing left open.

    Attributes:
        reasons: why each value that was left open is what it is.
    """

    setting: Setting
    reasons: tuple[str, ...]


def choose(setting: Setting, free: Collection[str], machine: Accelerator, tokens: float) -> Choice:
    """Fill in what is free of a setting, whose values there are defaults, and the longest length that is useful.

    Batch x accumulation stays. What costs time alone is tried first, then what costs precision, then what cuts text.
    Where nothing fits, the smallest setting is the choice.

    Args:
        free: among the values of WORDS.
        tokens: of an example, on average.

    Raises:
        InputError: the model has no module of a target's name.
    """
    if not free:
        return Choice(setting, ())
    names = ", ".join(sorted(free))
    if not machine.is_gpu:
        return Choice(setting, (f"{names}: as in a chain without [training]; on a CPU no memory is planned",))
    found = setting
    for group in _groups(setting, free):
        for limit in ((1 - ROOM) * machine.memory, machine.memory):
            fitting = [option for option in group if option.memory.total <= limit]
            if fitting:
                # Of those that are about as fast as any, the one that takes least.
                seconds = {option: step_seconds(option, machine, tokens) for option in fitting}
                enough = AS_FAST * min(seconds.values())
                fastest = [option for option in fitting if seconds[option] <= enough]
                found = min(fastest, key=lambda option: option.memory.total)
                return Choice(found, tuple(_reasons(found, setting, free, machine, tokens)))
        found = min(group, key=lambda option: option.memory.total)
    return Choice(found, (f"{names}: nothing fits; this takes least",))


def _groups(setting: Setting, free: Collection[str]) -> Iterator[list[Setting]]:
    """Settings that differ in speed alone, group by group: the first that has one that fits is taken."""
    lengths = [setting.length]
    if "length" in free:
        lengths += range((setting.length - 1) // LENGTH_STEP * LENGTH_STEP, 0, -LENGTH_STEP)
    for length in lengths:
        # A shorter text in half precision is no better than the whole text in 4 bits.
        tried = ["none", "nf4"] if length == setting.length else ["nf4"]
        for quantization in tried if "quantization" in free else [setting.quantization]:
            base = replace(setting, length=length, quantization=quantization)
            yield [
                replace(option, checkpointing=checkpointing)
                for option in (batches(base) if "batch" in free else [base])
                for checkpointing in ((False, True) if "checkpointing" in free else (setting.checkpointing,))
            ]


def batches(setting: Setting) -> list[Setting]:
    """Every batch that keeps batch x accumulation, the largest first."""
    together = setting.batch * setting.accumulation
    sizes = [size for size in range(together, 0, -1) if together % size == 0]
    return [replace(setting, batch=size, accumulation=together // size) for size in sizes]


def _reasons(
    found: Setting, setting: Setting, free: Collection[str], machine: Accelerator, tokens: float
) -> Iterator[str]:
    together = found.batch * found.accumulation
    seconds = pace(step_seconds(found, machine, tokens))
    if "batch" in free:
        processes = machine.processes(found.accumulation)
        shared = f" on {processes} GPUs" if processes > 1 else ""
        yield (
            f"batch {found.batch} x accumulation {found.accumulation}: {together} examples a step as asked for, "
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
            unquantized = (replace(each, checkpointing=True, quantization="none") for each in batches(setting))
            least = min((option.memory.total for option in unquantized), default=0)
            yield f"quantization nf4: in {found.precision} a step takes {gib(least)} at least"
    if found.length < setting.length:
        yield f"length {found.length:,}: {setting.length:,} do not fit, even in 4 bits"
