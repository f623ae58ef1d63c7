"""Phases that train nothing, resolved: what their own files leave out is that of the phase whose result they use."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kchain.phases.accelerators import ACCELERATORS, Accelerator, known_accelerator
from kchain.phases.chain import Phase, choose_precision
from kchain.phases.schema import PhaseFile, Tokens
from kchain.phases.uses import USES, Evaluating, Exporting, Generation, UseFile, UseTable

# Why an export is what it is.
ADDED = "updates are added in fp32, the sums rounded once; no GPU is needed"


def use_phase(name: str, table: UseFile, parent: Phase, label: str, problems: list[str]) -> Phase:
    """The phase of such a file; what is wrong goes into `problems`.

    Args:
        parent: the phase named by `after`.
        label: its file, as problems name it.
    """
    use = table.use
    accelerator, precision, reason = parent.accelerator, parent.precision, parent.precision_reason
    try:
        accelerator = known_accelerator(table.accelerator) if table.accelerator else _machine(use, parent)
        wanted = "fp32" if isinstance(use, Exporting) else parent.wanted.precision
        precision, reason = choose_precision(wanted, accelerator)
    except ValueError as error:
        problems.append(f"{label}: accelerator: {error}")
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
        precision_reason=ADDED if isinstance(use, Exporting) else reason,
        gates=table.gates,
        file=Path(label),
        use=use,
    )
    return following(phase, parent)


def following(phase: Phase, parent: Phase) -> Phase:
    """The phase with the settings of its parent as they are now. A use is one session."""
    changes: dict[str, Any] = {"max_sessions": 1}
    if isinstance(phase.use, Exporting):
        changes["quantization"] = "none"  # nothing is loaded: files are added up
    return replace(phase, training=parent.training.model_copy(update=changes), choices=())


def _machine(use: UseTable, parent: Phase) -> Accelerator:
    """That of the trained phase; an export adds up files, for which no GPU hours need be spent."""
    return ACCELERATORS["cpu"] if isinstance(use, Exporting) else parent.accelerator


def parent_problems(files: Mapping[str, PhaseFile | UseFile]) -> list[str]:
    """`after` of a phase that names one without an adapter of its own, as `NAME: problem`."""
    return [
        f"{name}.toml: after: {table.after} trains nothing ({files[table.after].kind}); name a phase that does"
        for name, table in files.items()
        if table.after is not None and table.after in files and files[table.after].kind in USES
    ]


def prompt_problems(phases: Iterable[Phase], files: Mapping[str, str]) -> list[str]:
    """The first row without a prompt in each file of prompts.

    Args:
        files: JSON lines of the project's files, by their path.
    """
    problems = []
    for phase in phases:
        name = phase.use.file if isinstance(phase.use, Generation) else None
        for number, line in enumerate(files.get(name or "", "").split("\n")[:-1], 1):
            prompt = json.loads(line).get("prompt")
            if not isinstance(prompt, str) or not prompt.strip():
                place = f"{phase.file}: generate.file: {name!r} row {number}"
                problems.append(f'{place}: no prompt; write {{"prompt": "..."}}')
                break
    return problems


def _evaluation_problems(use: Evaluating, parent: Phase) -> list[str]:
    """Why the examples that the parent keeps aside are no questions."""
    if use.file is not None:
        return []
    if parent.data.recipe == "text":
        return [f"evaluate.file: missing; {parent.name} learns plain text, which holds no questions"]
    if use.check == "regex":
        return ["evaluate.file: missing; the answers that a phase learns are no regular expressions"]
    if not parent.data.validation:
        return [f"evaluate.file: missing; {parent.name} keeps no questions aside (its data.validation is 0)"]
    return []
