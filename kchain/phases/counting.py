"""How many examples and steps a phase has, at most: counted from its files alone."""

from __future__ import annotations

import math

from kchain.phases.chain import Chain, Phase
from kchain.phases.data import Data, Source


def most_examples(chain: Chain, phase: Phase) -> tuple[int, str, int]:
    """The most examples, what says so, and the most that there can be if every uncounted source gives plenty.

    An optional source without a limit is not counted beside sources that can be: the phase is meant to do without it.
    """
    sources = phase.data.sources
    uncounted = [source for source in sources if _most(chain, source) is None]
    known = sum(_most(chain, source) or 0 for source in sources)
    cap = phase.data.max_examples
    if known > cap:
        return cap, "max_examples", cap
    if not uncounted:
        return known, "all that the sources may give", known
    names = ", ".join(source.name for source in uncounted)
    if known and all(source.optional for source in uncounted):
        return known, f"all that the others may give if {names} (optional, no limit) is skipped, else {cap:,}", cap
    return cap, f"max_examples, as nobody has counted {names}", cap


def _most(chain: Chain, source: Source) -> int | None:
    """The most examples of one source; only a project file can be counted beforehand."""
    rows = chain.files[source.file].count("\n") if source.kind == "project" and source.file else None
    if rows is None or source.limit is None:
        return source.limit if rows is None else rows
    return min(rows, source.limit)


def validation_examples(data: Data, examples: int) -> int:
    """Examples kept aside, on average: each one's own content decides."""
    share = min(data.max_validation, int(examples * data.validation))
    return 1 if data.validation and not share and examples > 1 else share


def most_steps(phase: Phase, examples: int) -> tuple[int, str]:
    """The most optimizer steps that so many examples give, and what says so."""
    training = phase.training
    together = training.batch * training.accumulation
    steps = training.epochs * math.ceil(examples / together)
    if training.max_steps is not None and training.max_steps < steps:
        return training.max_steps, "max_steps"
    return steps, f"{training.epochs} x {examples:,} examples / {together} a step"
