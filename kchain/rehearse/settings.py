"""A chain as it is rehearsed: the same phases with other parameters. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kchain.phases import (
    ACCELERATORS,
    Chain,
    Data,
    Evaluating,
    EvaluationGates,
    Exporting,
    Gates,
    NoGates,
    Phase,
    Quality,
    Samples,
    SettledTraining,
    Source,
)
from kchain.phases.source_kinds import PLACES
from kchain.phases.uses import UseTable

# Two passes over two batches: the halves of the run are the same examples, so their losses can be compared.
EPOCHS, STEPS_PER_EPOCH = 2, 2
# Examples of an optimizer step and tokens of an example, at most.
MOST_TOGETHER, MOST_TOKENS = 16, 512
# Answers of a phase that asks, and tokens of an answer, at most.
MOST_ANSWERS, ANSWER_TOKENS = 4, 16
# Random weights have nothing to lose, and a few steps at an ordinary rate would show nothing.
LEARNING_RATE = 5e-3
# Share by which the loss of the second pass is below that of the first, at least: gradients reach the adapter.
LOSS_FALL = 0.01
# Prompts that are answered, and tokens of an answer, at most: a tiny model never comes to an end by itself.
SAMPLES, SAMPLE_TOKENS = 2, 16
# Seconds: no step here is slow, and no session long.
STEP_SECONDS, SESSION_SECONDS = 60.0, 900
TARGET = "local"


@dataclass(frozen=True)
class Stand:
    """Where a source's rows come from in a rehearsal.

    Attributes:
        kind: "project" (the file in the notebook, as it is), "yours" (a file the source names for this) or "invented".
        ref, file: the data set and the file in it that hold them; empty for "project".
        words: what it is, for people.
    """

    phase: str
    source: str
    kind: str
    ref: str = ""
    file: str = ""
    words: str = ""


@dataclass(frozen=True)
class Difference:
    """A parameter that is another one in the rehearsal; `key` as a path with dots."""

    key: str
    real: Any
    rehearsed: Any


def rehearsed_chain(chain: Chain, root: Path, stands: Sequence[Stand], names: Sequence[str]) -> Chain:
    """The chain of these phases as it is rehearsed in the folder `root`."""
    places = {(stand.phase, stand.source): stand for stand in stands}
    phases = tuple(_phase(phase, places) for phase in chain.phases if phase.name in names)
    return replace(chain, root=root, target=TARGET, phases=phases)


def examples_of(phase: Phase) -> int:
    """Examples that a phase gets: those of its steps, and those kept aside to judge by."""
    training = _training(phase.training)
    trained = STEPS_PER_EPOCH * training.batch * training.accumulation
    aside = max(1, int(trained * phase.data.validation / (1 - phase.data.validation))) if phase.data.validation else 0
    return trained + min(aside, phase.data.max_validation)


def share_of(phase: Phase) -> int:
    """Examples that each source may give, so that every source is in the mix."""
    return math.ceil(examples_of(phase) / len(phase.data.sources))


def differences(real: Mapping[str, Any], rehearsed: Mapping[str, Any]) -> tuple[Difference, ...]:
    """What differs between the parameters of two notebooks, in the order of the real one's."""
    return tuple(_differences("", real, rehearsed))


def _differences(place: str, real: Any, other: Any) -> Iterator[Difference]:
    if isinstance(real, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*real, *other]):
            yield from _differences(f"{place}.{key}".lstrip("."), real.get(key), other.get(key))
    elif _are_alike(real, other):
        for number, (one, two) in enumerate(zip(real, other, strict=True)):
            yield from _differences(f"{place}.{number}", one, two)
    elif real != other:
        yield Difference(place, real, other)


def _are_alike(real: Any, other: Any) -> bool:
    """Whether both are lists of as many tables."""
    lists = isinstance(real, (list, tuple)) and isinstance(other, (list, tuple)) and len(real) == len(other)
    return lists and all(isinstance(item, Mapping) for item in (*real, *other))


def _phase(phase: Phase, places: Mapping[tuple[str, str], Stand]) -> Phase:
    small = replace(
        phase,
        accelerator=ACCELERATORS["cpu"],
        internet=False,
        session_timeout=SESSION_SECONDS,
        precision_reason="a rehearsal runs on the CPU",
        training=_training(phase.training),
    )
    if phase.use is not None:
        gates = EvaluationGates() if isinstance(phase.gates, EvaluationGates) else NoGates()
        return replace(small, use=_use(phase.use), gates=gates)
    return replace(
        small,
        data=_data(phase, places),
        samples=Samples(count=min(phase.samples.count, SAMPLES), tokens=min(phase.samples.tokens, SAMPLE_TOKENS)),
        gates=Gates(min_loss_fall=LOSS_FALL),
    )


def _use(use: UseTable) -> UseTable:
    """A few short answers: random weights have nothing to say."""
    if isinstance(use, Exporting):
        return use
    shorter = {"max_tokens": min(use.max_tokens, ANSWER_TOKENS), "limit": min(use.limit, MOST_ANSWERS)}
    if isinstance(use, Evaluating):
        return use.model_copy(update=shorter)
    styles = {token: style.model_copy(update={"max_tokens": None}) for token, style in use.settings.items()}
    return use.model_copy(update={**shorter, "settings": styles})


def _training(training: SettledTraining) -> SettledTraining:
    batch = min(training.batch, MOST_TOGETHER)
    changes = {
        "epochs": EPOCHS,
        "max_steps": None,
        "batch": batch,
        "accumulation": min(training.accumulation, max(1, MOST_TOGETHER // batch)),
        "learning_rate": max(training.learning_rate, LEARNING_RATE),
        "precision": "fp32",
        "max_length": min(training.max_length, MOST_TOKENS),
        "logging_steps": STEPS_PER_EPOCH,
        "max_sessions": 1,
        "step_seconds": max(training.step_seconds, STEP_SECONDS),
    }
    return training.model_copy(update=changes)


def _data(phase: Phase, places: Mapping[tuple[str, str], Stand]) -> Data:
    share = share_of(phase)
    sources = tuple(_source(source, places[phase.name, source.name], share) for source in phase.data.sources)
    examples = min(phase.data.max_examples, examples_of(phase))
    # A few examples, invented ones at that, say nothing about the faults of the real ones.
    quality = Quality(**dict.fromkeys(Quality.model_fields, 1.0))
    return phase.data.model_copy(update={"max_examples": examples, "sources": sources, "quality": quality})


def _source(source: Source, stand: Stand, share: int) -> Source:
    limit = min(source.limit or share, share)
    if stand.kind == "project":
        return source.model_copy(update={"limit": limit})
    place = {**dict.fromkeys(PLACES), "dataset": stand.ref, "file": stand.file, "split": None}
    return source.model_copy(update={"limit": limit, **place})
