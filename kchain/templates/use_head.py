"""The words of the head of a notebook that trains nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from typing import Any

from kchain.kernel_metadata.sources import AdapterSource
from kchain.phases import Chain
from kchain.phases.use_plan import UsePlan, plan_of
from kchain.templates.head import built_on
from kchain.templates.prose import code, prose, quotation
from kchain.units import gib, size


def use_head(chain: Chain, phase_name: str, target: str, sources: Iterable[AdapterSource]) -> dict[str, Any]:
    """Everything that `cells/use_head.md.jinja` shows, already safe as Markdown."""
    phase, planned = chain.phase(phase_name), plan_of(chain, phase_name)
    assert isinstance(planned, UsePlan)
    return {
        "title": prose(phase.title),
        "description": quotation(phase.description),
        "chain": chain.name,
        "plan": planned,
        "built_on": built_on(sources),
        "pad": f"{prose(chain.model.eos_token)} ({chain.model.eos_id})",
        "machine": f"`{planned.accelerator}`: 1 GPU used, {gib(planned.gpu_memory)} usable" if planned.gpus else "CPU",
        "figures": _figures(planned),
        "gates": planned.gates,
        "file": phase.file.as_posix(),
        "command": code(shlex.join(["kchain", "render", phase.name, "--target", target])),
    }


def _figures(planned: UsePlan) -> list[tuple[str, str]]:
    rows = [(name.capitalize(), prose(words)) for name, words in planned.does]
    rows.append(("Time", f"one session, which is ended after {planned.timeout_hours:g} h"))
    if planned.weight_bytes:
        rows.append(("Memory", f"{gib(planned.weight_bytes)} of weights"))
    if planned.disk:
        rows.append(("Scratch", f"{size(planned.disk)} for the merged model, written once"))
    if planned.moved:
        rows.append(("Comes in", f"{size(planned.moved)} of adapters"))
    return rows
