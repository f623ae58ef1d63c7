"""What a phase that trains nothing will do before it does it: on what, with which disk, and what it is asked. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kchain.phases.chain import Chain, Phase
from kchain.phases.gate_words import gate_words
from kchain.phases.memory import HALF_BYTES, weight_bytes
from kchain.phases.models import FP32_BYTES, Shape, model_shape
from kchain.phases.plan import Plan, plan
from kchain.phases.uses import Exporting, Generation, UseTable
from kchain.units import GIB, size

# What Kaggle keeps of a session's output, in bytes.
OUTPUT_LIMIT = 20 * 10**9
# Bytes of a format as a share of the merged model's.
_SHARES = {"safetensors": 1.0, "adapter": 0.0, "f16": 1.0, "q8_0": 0.53}


@dataclass(frozen=True)
class UsePlan:
    """The plan of such a phase. None stands where the base model's shape is not known.

    Attributes:
        kind: what it does: "evaluate", "export" or "generate".
        built_on: the phases whose adapters it uses, root first.
        does: what it does, row by row.
        gpu_memory: usable bytes of the GPU it uses, 0 on a CPU.
        weight_bytes: of the model in the precision in which it answers; None where it does not.
        disk: bytes of scratch for the merged model.
        moved: bytes of adapters that come in.
        whole_model: bytes that would come in if the last phase handed on its whole merged model.
        warnings: what does not fit, with what to change.
    """

    kind: str
    phase: str
    title: str
    description: str
    kernel: str
    model: str
    built_on: tuple[str, ...]
    does: tuple[tuple[str, str], ...]
    accelerator: str
    gpus: int
    gpu_memory: int
    precision: str
    precision_reason: str
    weight_bytes: int | None
    disk: int | None
    moved: int | None
    whole_model: int | None
    timeout_hours: float
    gates: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not self.warnings

    def as_dict(self) -> dict[str, Any]:
        """For `kchain plan --json`."""
        return asdict(self)


def plan_of(chain: Chain, phase_name: str, shape: Shape | None = None) -> Plan | UsePlan:
    """The plan of any phase.

    Raises:
        InputError: the chain has no phase of that name.
    """
    phase = chain.phase(phase_name)
    return plan(chain, phase_name, shape) if phase.use is None else _plan(chain, phase, phase.use, shape)


def _plan(chain: Chain, phase: Phase, use: UseTable, shape: Shape | None) -> UsePlan:
    shape = shape or model_shape(chain.model.source)
    lineage = chain.lineage(phase.name)
    adapters = [shape.adapter_bytes(each.lora.r, each.lora.targets, len(each.tokens.all)) for each in lineage if shape]
    merged = shape.parameters * HALF_BYTES if shape else None
    quantization = phase.training.quantization
    wide = FP32_BYTES if phase.precision == "fp32" else HALF_BYTES
    answers = not isinstance(use, Exporting)
    weights = weight_bytes(shape, wide, quantization) if shape and answers else None
    return UsePlan(
        kind=phase.kind,
        phase=phase.name,
        title=phase.title,
        description=phase.description,
        kernel=chain.kernel(phase.name),
        model=chain.model.source,
        built_on=tuple(each.name for each in lineage),
        does=does_words(use, phase),
        accelerator=phase.accelerator.name,
        gpus=phase.accelerator.gpus,
        gpu_memory=phase.accelerator.memory,
        precision=phase.precision if quantization == "none" else f"{quantization}, computing in {phase.precision}",
        precision_reason=phase.precision_reason,
        weight_bytes=weights,
        disk=merged,
        moved=sum(each or 0 for each in adapters) if adapters else None,
        whole_model=merged,
        timeout_hours=phase.session_timeout / 3600,
        gates=gate_words(phase.gates, first=False),
        warnings=tuple(_warnings(phase, use, weights, merged)),
    )


def does_words(use: UseTable, phase: Phase) -> tuple[tuple[str, str], ...]:
    """What the phase does, row by row."""
    if isinstance(use, Exporting):
        return (("makes", ", ".join(_format_words(each, use.type) for each in use.formats)),)
    if isinstance(use, Generation):
        return _generation_words(use)
    questions = use.file or f"what {phase.after} kept aside"
    return (
        ("asks", f"the base model and the chain, {use.limit:,} questions at most, of {questions}"),
        ("success", f"check {use.check}; answers of {use.max_tokens:,} tokens at most"),
    )


def _format_words(form: str, kind: str) -> str:
    return {
        "safetensors": "the whole model for transformers, fp16",
        "adapter": "one adapter for the original base model",
        "gguf": f"a file for llama.cpp ({kind})",
    }[form]


def _generation_words(use: Generation) -> tuple[tuple[str, str], ...]:
    named = [f"{len(use.prompts)} prompts"] if use.prompts else []
    asked = " and ".join([*named, *([f"those of {use.file}"] if use.file else [])])
    styles = f", each in {', '.join(use.styles)}" if use.styles else ""
    drawn = f"temperature {use.temperature:g}, top_p {use.top_p:g}" if use.temperature else "the likeliest token"
    return (
        ("answers", f"{asked}{styles}; then whoever opens the notebook"),
        ("how", f"{use.max_tokens:,} tokens at most, {drawn}"),
    )


def _warnings(phase: Phase, use: UseTable, weights: int | None, merged: int | None) -> list[str]:
    machine, found = phase.accelerator, list[str]()
    if isinstance(use, Exporting):
        output = sum(_SHARES[use.type if each == "gguf" else each] for each in use.formats) * (merged or 0)
        if output > OUTPUT_LIMIT:
            found.append(f"the output takes {size(int(output))}; Kaggle keeps {size(OUTPUT_LIMIT)}: name fewer formats")
    elif weights and machine.is_gpu and weights > machine.memory:
        found.append(
            f"the model takes {weights / GIB:.1f} GiB of {machine.memory / GIB:.1f} GiB: set accelerator to a larger "
            f'machine, or quantization = "nf4" in {phase.after}'
        )
    if merged and merged > machine.disk:
        found.append(f"the merged model takes {merged / GIB:.1f} GiB of {machine.disk / GIB:.0f} GiB scratch")
    return found
