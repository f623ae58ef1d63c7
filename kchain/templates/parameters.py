"""PARAMETERS: everything a notebook is told, as one plain dictionary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from kchain.kernel_metadata.sources import AdapterSource
from kchain.phases import Chain, Phase, Source
from kchain.phases.project_files import travels_as
from kchain.templates.environment import accelerator_table, environment
from kchain.templates.use_parameters import use_parameters


def parameters(chain: Chain, phase_name: str, target: str, sources: Iterable[AdapterSource]) -> dict[str, Any]:
    """The dictionary that the runtime consumes: only str, int, float, bool, None, lists and dictionaries.

    Raises:
        InputError: the chain has no phase of that name.
    """
    phase = chain.phase(phase_name)
    if phase.use is not None:
        return use_parameters(chain, phase, target, sources)
    return {
        "chain": chain.name,
        "phase": phase.name,
        "title": phase.title,
        "description": phase.description,
        "seed": chain.seed,
        "target": target,
        "model": {"source": chain.model.source},
        "pad": {"token": chain.model.eos_token, "id": chain.model.eos_id},
        "adapter_mode": phase.adapter,
        "lineage": [asdict(source) for source in sources],
        "tokens": {"added": list(phase.tokens.added), "trained": list(phase.tokens.trained)},
        "lora": {**phase.lora.model_dump(), "targets": list(phase.lora.targets)},
        "training": {**phase.training.model_dump(), "precision": phase.precision, "processes": phase.processes},
        "data": data_table(phase),
        "samples": phase.samples.model_dump(),
        "accelerator": accelerator_table(phase.accelerator),
        "session_timeout": phase.session_timeout,
        # Of a later session: kchain.bundle.continued fills it in when it pushes one.
        "continuation": None,
        "environment": environment(phase, target),
    }


def data_table(phase: Phase) -> dict[str, Any]:
    """What the runtime is told of a phase's data."""
    data = phase.data.model_dump(exclude={"sources"})
    return {**data, "sources": [_source(source) for source in phase.data.sources]}


def _source(source: Source) -> dict[str, Any]:
    # A rehearsal's sample is no part of what is pushed: another one makes nothing of it another bundle.
    table = source.model_dump(mode="json", exclude={"rehearsal"})
    if source.kind == "project" and source.file:
        table["file"] = travels_as(source.file)
    return {"name": table.pop("name"), "kind": source.kind, **table}
