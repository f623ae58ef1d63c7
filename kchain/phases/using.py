"""Phases that train nothing, resolved: what their own files leave out is that of the phase whose result they use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kchain.phases.accelerators import known_accelerator
from kchain.phases.chain import Phase, choose_precision
from kchain.phases.schema import PhaseFile, Tokens
from kchain.phases.uses import USES, Evaluating, UseFile


def use_phase(name: str, table: UseFile, parent: Phase, label: str, problems: list[str]) -> Phase:
    """The phase of such a file; what is wrong goes into `problems`.

    Args:
        parent: the phase named by `after`.
        label: its file, as problems name it.
    """
    accelerator, precision, reason = parent.accelerator, parent.precision, parent.precision_reason
    try:
        accelerator = known_accelerator(table.accelerator) if table.accelerator else accelerator
        precision, reason = choose_precision(parent.wanted.precision, accelerator)
    except ValueError as error:
        problems.append(f"{label}: accelerator: {error}")
    use = table.use
    if isinstance(use, Evaluating):
        problems += [f"{label}: {problem}" for problem in _evaluation_problems(use, parent)]
    phase = replace(
        parent,
        name=name,
        title=table.title,
        description=table.description,
        after=parent.name,
        adapter="merge",
        accelerator=accelerator,
        internet=parent.internet if table.internet is None else table.internet,
        session_timeout=table.session_timeout or parent.session_timeout,
        data=parent.data.model_copy(update={"sources": ()}),
        tokens=Tokens(),
        precision=precision,
        precision_reason=reason,
        gates=table.gates,
        file=Path(label),
        use=use,
    )
    return following(phase, parent)


def following(phase: Phase, parent: Phase) -> Phase:
    """The phase with the settings of its parent as they are now. A use is one session."""
    return replace(phase, training=parent.training.model_copy(update={"max_sessions": 1}), choices=())


def parent_problems(files: Mapping[str, PhaseFile | UseFile]) -> list[str]:
    """`after` of a phase that names one without an adapter of its own, as `NAME: problem`."""
    return [
        f"{name}.toml: after: {table.after} trains nothing ({files[table.after].kind}); name a phase that does"
        for name, table in files.items()
        if table.after is not None and table.after in files and files[table.after].kind in USES
    ]


def _evaluation_problems(use: Evaluating, parent: Phase) -> list[str]:
    """Why the examples that the parent keeps aside are no questions."""
    if use.file is not None:
        return []
    if parent.data.recipe == "text":
        return [f"evaluate.file: missing; {parent.name} learns plain text, which holds no questions"]
    if not parent.data.validation:
        return [f"evaluate.file: missing; {parent.name} keeps no questions aside (its data.validation is 0)"]
    return []
