"""PARAMETERS of a notebook that trains nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from kchain.kernel_metadata.sources import AdapterSource
from kchain.phases import Chain, Phase
from kchain.phases.project_files import travels_as
from kchain.phases.uses import UseTable
from kchain.templates.environment import accelerator_table, environment


def use_parameters(chain: Chain, phase: Phase, target: str, sources: Iterable[AdapterSource]) -> dict[str, Any]:
    """The dictionary that `kchain.export.use` consumes: only str, int, float, bool, None, lists and dictionaries."""
    assert phase.use is not None
    adapters = tuple(sources)
    return {
        "chain": chain.name,
        "phase": phase.name,
        "kind": phase.kind,
        "title": phase.title,
        "description": phase.description,
        "seed": chain.seed,
        "target": target,
        "model": {"source": chain.model.source},
        "pad": {"token": chain.model.eos_token, "id": chain.model.eos_id},
        "system_prompt": phase.data.system_prompt,
        "lineage": [asdict(source) for source in adapters],
        "trained": {source.phase: _trained(chain.phase(source.phase)) for source in adapters},
        "lora": {**phase.lora.model_dump(), "targets": list(phase.lora.targets)},
        "precision": phase.precision,
        "quantization": phase.training.quantization,
        phase.kind: _table(phase.use),
        "accelerator": accelerator_table(phase.accelerator),
        "session_timeout": phase.session_timeout,
        "continuation": None,
        "environment": environment(phase, target),
    }


def _trained(phase: Phase) -> dict[str, Any]:
    """What a model card and a prompt need to know of a phase of the lineage."""
    places = [source.model_dump(include={"name", "dataset", "huggingface", "file"}) for source in phase.data.sources]
    return {
        "title": phase.title,
        "description": phase.description,
        "tokens": list(phase.tokens.all),
        "sources": places,
    }


def _table(use: UseTable) -> dict[str, Any]:
    """The phase's own table, its file under the name that it has in the notebook."""
    table = use.model_dump(mode="json")
    return {**table, "file": travels_as(table["file"])} if table.get("file") else table
