"""What a phase leaves to kchain is chosen here: the fastest setting that fits, and why. Tried out, not guessed."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from kchain.phases.accelerators import Accelerator
from kchain.phases.memory import Setting
from kchain.phases.speed import step_seconds
from kchain.units import gib, pace

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
