"""PARAMETERS: everything a notebook is told, as one plain dictionary."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from kchain.kernel_metadata.sources import AdapterSource
from kchain.phases import Accelerator, Chain, Phase, Source, Training
from kchain.phases.project_files import travels_as

# What Kaggle's image lacks and what in it must go (docker-python 78aaa43, August 2026: torch 2.10, peft 0.19.1,
# torchao 0.10.0, no bitsandbytes). bitsandbytes asks for torch >= 2.4 and no more, so the image's torch stays.
BITSANDBYTES = "bitsandbytes==0.50.2"
# peft since 0.18.1 refuses to put LoRA on a model while a torchao this old is installed.
CONFLICTING = "torchao"


def parameters(chain: Chain, phase_name: str, target: str, sources: Iterable[AdapterSource]) -> dict[str, Any]:
    """The dictionary that the runtime consumes: only str, int, float, bool, None, lists and dictionaries.

    Raises:
        InputError: the chain has no phase of that name.
    """
    phase = chain.phase(phase_name)
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
        "evaluation": phase.evaluation.model_dump(),
        "accelerator": _accelerator(phase.accelerator),
        "session_timeout": phase.session_timeout,
        # Of a later session: kchain.bundle.continued fills it in when it pushes one.
        "continuation": None,
        "environment": _environment(phase.training, target),
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


def _accelerator(accelerator: Accelerator) -> dict[str, Any]:
    return {
        "name": accelerator.name,
        "gpus": accelerator.gpus,
        "memory": accelerator.memory,
        "capability": list(accelerator.capability),
    }


def _environment(training: Training, target: str) -> dict[str, list[str]]:
    """What to install and remove first: on Kaggle's image alone, one's own machine has its environment already."""
    if target != "kaggle":
        return {"install": [], "uninstall": []}
    needs_bitsandbytes = training.quantization == "nf4" or "8bit" in training.optimizer
    return {"install": [BITSANDBYTES] if needs_bitsandbytes else [], "uninstall": [CONFLICTING]}
