"""What would make a phase better without being wrong in it: a faster setting, a length that fits the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from kchain.phases.chain import Phase
from kchain.phases.choosing import LENGTH_STEP, ROOM, choose
from kchain.phases.fitting import PHASE_FILE, change
from kchain.phases.memory import Setting
from kchain.phases.settling import example_tokens
from kchain.phases.speed import step_seconds
from kchain.units import gib, pace

# A change is worth a line from this share of the time, or of the GPU's memory.
WORTH = 0.2
# kchain/runtime/train.py: a run whose steps take longer than this many times step_seconds stops itself.
SLOW = 2.0


def advice(phase: Phase, setting: Setting | None, lengths: list[int]) -> tuple[str, ...]:
    """Each a sentence in the words of the phase file.

    Args:
        lengths: tokens of the examples, where they are known.
    """
    if setting is None:
        return ()
    tokens, _ = example_tokens(lengths, setting.length)
    found = [*_slow(phase, setting, tokens), *_shorter(phase, setting, lengths)]
    return (*found, *_faster(phase, setting, tokens))


def _slow(phase: Phase, setting: Setting, tokens: float) -> Iterator[str]:
    seconds, planned = step_seconds(setting, phase.accelerator, tokens), phase.training.step_seconds
    if seconds > SLOW * planned:
        yield (
            f"a step takes about {pace(seconds)}, and a run stops itself beyond {SLOW:g} x step_seconds = "
            f'{pace(SLOW * planned)}: set step_seconds = "auto"'
        )


def _shorter(phase: Phase, setting: Setting, lengths: list[int]) -> Iterator[str]:
    if not lengths or not phase.accelerator.is_gpu:
        return
    longest = LENGTH_STEP * math.ceil(max(lengths) / LENGTH_STEP)
    shorter = replace(setting, length=longest)
    if longest < setting.length and setting.memory.total - shorter.memory.total > WORTH * phase.accelerator.memory:
        yield (
            f"no example has more than about {max(lengths):,} tokens: max_length = {longest} takes "
            f"{gib(shorter.memory.total)} in place of {gib(setting.memory.total)}"
        )


def _faster(phase: Phase, setting: Setting, tokens: float) -> Iterator[str]:
    machine = phase.accelerator
    if not machine.is_gpu:
        return
    best = choose(setting, {"batch", "checkpointing"}, machine, tokens).setting
    before, after = (step_seconds(each, machine, tokens) for each in (setting, best))
    if best.memory.total <= (1 - ROOM) * machine.memory and after <= (1 - WORTH) * before:
        yield f"{change(setting, best, PHASE_FILE)}: about {pace(after)} a step in place of {pace(before)}, by estimate"
