"""Whether a training step fits into a GPU, and what would make it fit: tried out, not guessed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kchain.phases.accelerators import ACCELERATORS, Accelerator
from kchain.phases.memory import Memory, memory
from kchain.phases.models import Shape
from kchain.phases.units import memory as gib

# Lengths are proposed in such steps; shorter than one step is no example.
LENGTH_STEP = 64
# How a change is written: in a phase file, and as options of `kchain plan`.
PHASE_FILE = {
    "batch": "batch = {0.batch}, accumulation = {0.accumulation}",
    "checkpointing": "checkpointing = true",
    "quantization": 'quantization = "{0.quantization}"',
    "length": "max_length = {0.length}",
}
OPTIONS = {
    "batch": "--batch {0.batch} --accumulation {0.accumulation}",
    "checkpointing": "--checkpointing",
    "quantization": "--precision {0.quantization}",
    "length": "--length {0.length}",
}


@dataclass(frozen=True)
class Setting:
    """Everything that decides the memory of a step; the words are those of `[training]` and `[lora]`."""

    shape: Shape
    precision: str
    quantization: str
    batch: int
    accumulation: int
    length: int
    rank: int
    targets: tuple[str, ...]
    optimizer: str
    checkpointing: bool

    @property
    def memory(self) -> Memory:
        """What a step takes.

        Raises:
            InputError: a target is no module of the model.
        """
        return memory(
            self.shape, self.precision, self.quantization, self.batch, self.length, self.rank, self.targets,
            self.optimizer, self.checkpointing,
        )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The memory plan of a setting on a machine.

    Attributes:
        available: bytes of the GPU that trains; None: a CPU, whose memory kchain does not know.
        fits: None where that is not known.
        reasons: how the figures come about, and what would fit where this does not.
    """

    memory: Memory
    available: int | None
    fits: bool | None
    reasons: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `kchain plan --json`."""
        memory = self.memory.as_dict()
        return {"memory": memory, "available": self.available, "fits": self.fits, "reasons": list(self.reasons)}


def answer(setting: Setting, machine: Accelerator, precision_reason: str) -> Answer:
    """Whether a setting fits a machine, with the reasons; what would fit is written as options.

    Raises:
        InputError: a target is no module of the model.
    """
    needed = setting.memory
    reasons = [f"{setting.precision}: {precision_reason}", *_terms(setting)]
    if not machine.is_gpu:
        return Answer(needed, None, None, (*reasons, f"a CPU: see that it has {gib(needed.total)} free"))
    fits = needed.total <= machine.memory
    if fits:
        reasons.append(f"fits: {gib(machine.memory - needed.total)} of {gib(machine.memory)} stay free")
    else:
        reasons.append(refusal(setting, machine, OPTIONS))
    return Answer(needed, machine.memory, fits, tuple(reasons))


def refusal(setting: Setting, machine: Accelerator, words: Mapping[str, str]) -> str:
    """What does not fit, and what would, in one sentence; `words` is PHASE_FILE or OPTIONS."""
    needed = setting.memory
    what = f"a step takes {gib(needed.total)}"
    if needed.weights > machine.memory:
        what = f"the base model alone takes {gib(needed.weights)}"
    return f"{what} of a GPU that has {gib(machine.memory)}: {_cure(setting, machine, words)}"


def _cure(setting: Setting, machine: Accelerator, words: Mapping[str, str]) -> str:
    ways = [found for options in _changes(setting) if (found := _first_that_fits(options, machine))]
    together = _together(setting)
    if not ways and (found := _first_that_fits(together, machine)):
        ways = [found]
    if ways:
        return "set " + ", or ".join(f"{_change(setting, way, words)} ({gib(way.memory.total)})" for way in ways)
    least = together[-1]
    even = f"even {_change(setting, least, words)} takes {gib(least.memory.total)}"
    larger = [other for other in ACCELERATORS.values() if least.memory.total <= other.memory]
    machines = min(larger, key=lambda other: other.memory, default=None)
    return f"{even}; take a smaller model" + (f", or {machines.name} ({gib(machines.memory)})" if machines else "")


def _changes(setting: Setting) -> Iterator[list[Setting]]:
    """One way to save memory after the other, each from its mildest to its strongest form."""
    yield list(_smaller_batches(setting))
    if not setting.checkpointing:
        yield [replace(setting, checkpointing=True)]
    if setting.quantization == "none":
        yield [_quantized(setting)]
    yield list(_shorter(setting))


def _together(setting: Setting) -> list[Setting]:
    """The ways on top of each other: first what costs time alone, then what costs precision, then what cuts text."""
    least = replace([setting, *_smaller_batches(setting)][-1], checkpointing=True)
    quantized = _quantized(least)
    return [least, quantized, *_shorter(quantized)]


def _smaller_batches(setting: Setting) -> Iterator[Setting]:
    """Every smaller batch that keeps batch x accumulation."""
    together = setting.batch * setting.accumulation
    for batch in range(setting.batch - 1, 0, -1):
        if together % batch == 0:
            yield replace(setting, batch=batch, accumulation=together // batch)


def _shorter(setting: Setting) -> Iterator[Setting]:
    start = (setting.length - 1) // LENGTH_STEP * LENGTH_STEP
    return (replace(setting, length=length) for length in range(start, 0, -LENGTH_STEP))


def _quantized(setting: Setting) -> Setting:
    return replace(setting, quantization="nf4")


def _first_that_fits(options: list[Setting], machine: Accelerator) -> Setting | None:
    return next((option for option in options if option.memory.total <= machine.memory), None)


def _change(old: Setting, new: Setting, words: Mapping[str, str]) -> str:
    """The difference between two settings as a person types it; "this" where there is none."""
    parts = [text.format(new) for name, text in words.items() if getattr(new, name) != getattr(old, name)]
    return (" " if words is OPTIONS else ", ").join(parts) or "this"


def _terms(setting: Setting) -> list[str]:
    """The terms that a person can change, in words."""
    shape = setting.shape
    nf4 = "in 4 bits, embedding and head not" if setting.quantization == "nf4" else f"in {setting.precision}"
    tokens = setting.batch * setting.length
    kept = "the input of each layer alone is kept, the rest computed again"
    return [
        f"weights: {shape.parameters / 1e9:.2f} billion parameters {nf4}",
        f"optimizer: gradients in fp32 and the moments of {setting.optimizer}",
        f"activations: {tokens:,} tokens at a time; {kept if setting.checkpointing else 'all of every layer is kept'}",
        f"logits: {tokens:,} positions x {shape.vocab:,} words in fp32, with two gradients",
    ]
