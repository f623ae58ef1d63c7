"""Whether a training step fits into a GPU, what would make it fit, and what would make a phase better.

Changes are tried, not guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from kchain.phases.chain import Phase
from kchain.phases.machines import ACCELERATORS, Accelerator
from kchain.phases.memory import Memory, Setting, chunk
from kchain.phases.settle import LENGTH_STEP, ROOM, batches, choose, example_tokens
from kchain.phases.time import step_seconds
from kchain.runtime.contract import SLOW
from kchain.units import gib, pace

Words = Mapping[str, Callable[[Setting], str]]
# How a change is written: in a phase file, and as options of `kchain plan`.
PHASE_FILE: Words = {
    "batch": lambda new: f"batch = {new.batch}, accumulation = {new.accumulation}",
    "checkpointing": lambda new: f"checkpointing = {str(new.checkpointing).lower()}",
    "quantization": lambda new: f'quantization = "{new.quantization}"',
    "length": lambda new: f"max_length = {new.length}",
}
OPTIONS: Words = {
    "batch": lambda new: f"--batch {new.batch} --accumulation {new.accumulation}",
    "checkpointing": lambda new: "--checkpointing" if new.checkpointing else "--no-checkpointing",
    "quantization": lambda new: f"--precision {new.quantization}",
    "length": lambda new: f"--length {new.length}",
}
# A change is worth a line from this share of the time, or of the GPU's memory.
WORTH = 0.2


@dataclass(frozen=True)
class SettingPlan:
    """The plan of a setting on a machine.

    Attributes:
        seconds: of a step, by estimate, of examples that are as long as `tokens`.
        available: bytes of the GPU that trains; None: a CPU, whose memory kchain does not know.
        fits: None where that is not known.
        reasons: how the figures come about, and what would fit where this does not.
    """

    setting: Setting
    memory: Memory
    available: int | None
    fits: bool | None
    seconds: float
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `kchain plan --json`."""
        memory = self.memory.as_dict()
        chosen = asdict(self.setting)
        return {
            "memory": memory,
            "available": self.available,
            "fits": self.fits,
            "reasons": list(self.reasons),
            "setting": {key: chosen[key] for key in chosen if key != "shape"},
            "seconds": self.seconds,
        }


def setting_plan(setting: Setting, machine: Accelerator, reasons: Collection[str], tokens: float) -> SettingPlan:
    """Whether a setting fits a machine, with the reasons; what would fit is written as options.

    Args:
        reasons: of what was chosen before.
        tokens: of an example, on average.

    Raises:
        InputError: the model has no module of a target's name.
    """
    needed, seconds = setting.memory, step_seconds(setting, machine, tokens)
    together = setting.batch * setting.accumulation
    found = [*reasons, *_terms(setting)]
    found.append(
        f"time: about {pace(seconds)} a step of {together} examples of {tokens:,.0f} tokens on average, a guess"
    )
    if not machine.is_gpu:
        found.append(f"a CPU: see that it has {gib(needed.total)} free")
        return SettingPlan(setting, needed, None, None, seconds, tuple(found))
    fits = needed.total <= machine.memory
    if fits:
        found.append(f"fits: {gib(machine.memory - needed.total)} of {gib(machine.memory)} are left")
    else:
        found.append(refusal(setting, machine, OPTIONS))
    return SettingPlan(setting, needed, machine.memory, fits, seconds, tuple(found))


def refusal(setting: Setting, machine: Accelerator, words: Words) -> str:
    """What does not fit, and what would, in one sentence; `words` is PHASE_FILE or OPTIONS."""
    needed = setting.memory
    what = f"a step takes {gib(needed.total)}"
    if needed.weights > machine.memory:
        what = f"the base model alone takes {gib(needed.weights)}"
    return f"{what} of a GPU that has {gib(machine.memory)}: {_cure(setting, machine, words)}"


def _cure(setting: Setting, machine: Accelerator, words: Words) -> str:
    ways = [found for options in _changes(setting) if (found := _first_that_fits(options, machine))]
    # The ways on top of each other: first what costs time alone, then what costs precision, then what cuts text.
    batched = replace([setting, *_smaller_batches(setting)][-1], checkpointing=True)
    quantized = _quantized(batched)
    together = [batched, quantized, *_shorter(quantized)]
    if not ways and (found := _first_that_fits(together, machine)):
        ways = [found]
    if ways:
        return "set " + ", or ".join(f"{change(setting, way, words)} ({gib(way.memory.total)})" for way in ways)
    least = together[-1]
    even = f"even {change(setting, least, words)} takes {gib(least.memory.total)}"
    larger = [
        other
        for other in ACCELERATORS.values()
        if other.kaggle == machine.kaggle and least.memory.total <= other.memory
    ]
    machines = min(larger, key=lambda other: other.memory, default=None)
    return f"{even}; take a smaller model" + (f", or {machines.name} ({gib(machines.memory)})" if machines else "")


def _changes(setting: Setting) -> Iterator[list[Setting]]:
    """One way to save memory after the other, each from its mildest to its strongest form."""
    yield _smaller_batches(setting)
    if not setting.checkpointing:
        yield [replace(setting, checkpointing=True)]
    if setting.quantization == "none":
        yield [_quantized(setting)]
    yield list(_shorter(setting))


def _smaller_batches(setting: Setting) -> list[Setting]:
    """Every smaller batch that keeps batch x accumulation."""
    return [each for each in batches(setting) if each.batch < setting.batch]


def _shorter(setting: Setting) -> Iterator[Setting]:
    start = (setting.length - 1) // LENGTH_STEP * LENGTH_STEP
    return (replace(setting, length=length) for length in range(start, 0, -LENGTH_STEP))


def _quantized(setting: Setting) -> Setting:
    return replace(setting, quantization="nf4")


def _first_that_fits(options: list[Setting], machine: Accelerator) -> Setting | None:
    return next((option for option in options if option.memory.total <= machine.memory), None)


def change(old: Setting, new: Setting, words: Words) -> str:
    """The difference between two settings as a person types it; "this" where there is none."""
    parts = [text(new) for name, text in words.items() if getattr(new, name) != getattr(old, name)]
    return (" " if words is OPTIONS else ", ").join(parts) or "this"


def _terms(setting: Setting) -> list[str]:
    """The terms that a person can change, in words."""
    shape = setting.shape
    nf4 = "in 4 bits, embedding and head not" if setting.quantization == "nf4" else f"in {setting.precision}"
    tokens = setting.batch * setting.length
    kept = "the input of each layer alone is kept, the rest computed again"
    words = f"{shape.vocab:,} words"
    scores = f"logits: {chunk(shape):,} positions x {words} at a time, never all of them"
    if shape.softcap:
        scores = f"logits: {tokens:,} positions x {words}: this model caps them, so all are kept"
    return [
        f"weights: {shape.parameters / 1e9:.2f} billion parameters {nf4}",
        f"optimizer: gradients in fp32 and the moments of {setting.optimizer}",
        f"activations: {tokens:,} tokens at a time; {kept if setting.checkpointing else 'all of every layer is kept'}",
        scores,
    ]


def advice(phase: Phase, setting: Setting | None, lengths: list[int]) -> tuple[str, ...]:
    """Each a sentence in the words of the phase file.

    Args:
        lengths: tokens of the examples, where they are known.
    """
    if setting is None:
        return ()
    tokens, _ = example_tokens(lengths, setting.length)
    found = []
    seconds, planned = step_seconds(setting, phase.accelerator, tokens), phase.training.step_seconds
    if seconds > SLOW * planned:
        found.append(
            f"a step takes about {pace(seconds)}, and a run stops itself beyond {SLOW:g} x step_seconds = "
            f'{pace(SLOW * planned)}: set step_seconds = "auto"'
        )
    return (*found, *_shorter_length(phase, setting, lengths), *_faster(phase, setting, tokens))


def _shorter_length(phase: Phase, setting: Setting, lengths: list[int]) -> Iterator[str]:
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
