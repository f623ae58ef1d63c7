"""What a phase will do before it does it: steps, hours, disk, and what moves from phase to phase. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from kchain.phases.accelerators import GIB
from kchain.phases.chain import Chain, Phase
from kchain.phases.fitting import PHASE_FILE, Setting, refusal
from kchain.phases.memory import HALF_BYTES, Memory
from kchain.phases.models import Shape, model_shape
from kchain.phases.schema import Data, Gates, Lora, Source


@dataclass(frozen=True)
class Plan:
    """The plan of one phase. None stands where the base model's shape is not known.

    Attributes:
        built_on: the ancestors whose adapters are merged first, root first.
        examples: most examples that are used, over all sources; `examples_reason` says what sets the cap, and which
            optional sources without a limit are not counted.
        validation: of these, kept aside to judge by.
        steps: optimizer steps, at most.
        hours: steps x planned seconds of a step.
        timeout_hours: when the target ends the session.
        gpu_memory: usable bytes of the GPU that trains, 0 on a CPU.
        weight_bytes: of the frozen base model in its half-precision files.
        memory: of the GPU at the highest point of a step, term by term.
        disk: bytes of scratch for the merged base; 0 where there is nothing to merge.
        adapter_bytes: expected size of the adapter this phase makes.
        moved: bytes of adapters that come in from the ancestors.
        whole_model: bytes that would come in if the parent handed on its whole merged model.
        gates: what the result must have reached before the chain goes on, in words.
        warnings: what does not fit, with what to change.
    """

    phase: str
    title: str
    description: str
    kernel: str
    model: str
    built_on: tuple[str, ...]
    sources: tuple[str, ...]
    recipe: str
    lora: str
    learning_rate: float
    examples: int
    examples_reason: str
    validation: int
    batch: int
    accumulation: int
    epochs: int
    steps: int
    steps_reason: str
    hours: float
    timeout_hours: float
    accelerator: str
    gpus: int
    gpus_used: int
    gpu_memory: int
    precision: str
    precision_reason: str
    weight_bytes: int | None
    memory: Memory | None
    disk: int | None
    adapter_bytes: int | None
    moved: int | None
    whole_model: int | None
    gates: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not self.warnings

    def as_dict(self) -> dict[str, Any]:
        """For `kchain plan --json`."""
        return {**asdict(self), "memory": self.memory.as_dict() if self.memory else None}


def plan(chain: Chain, phase_name: str, shape: Shape | None = None) -> Plan:
    """Work out the plan of a phase from the files alone.

    Args:
        shape: of the base model; None: what kchain knows of it.

    Raises:
        InputError: the chain has no phase of that name.
    """
    phase = chain.phase(phase_name)
    training = phase.training
    ancestors = chain.lineage(phase_name)
    shape = shape or model_shape(chain.model.source)
    setting = _setting(phase, shape)
    examples, examples_reason, ceiling = _examples(chain, phase)
    validation = _validation(phase.data, examples)
    steps, steps_reason = _steps(phase, examples - validation)
    hours = steps * training.step_seconds / 3600
    most_steps, _ = _steps(phase, ceiling - _validation(phase.data, ceiling))
    adapter = shape.adapter_bytes(phase.lora.r, phase.lora.targets) if shape else None
    weights = shape.parameters * HALF_BYTES if shape else None
    # The merged base is written as fp16, whatever precision trains.
    disk = weights if chain.merged(phase_name) else 0
    return Plan(
        phase=phase.name,
        title=phase.title,
        description=phase.description,
        kernel=chain.kernel(phase_name),
        model=chain.model.source,
        built_on=tuple(ancestor.name for ancestor in ancestors),
        sources=tuple(describe_source(source) for source in phase.data.sources),
        recipe=phase.data.recipe,
        lora=_lora_words(phase.lora),
        learning_rate=training.learning_rate,
        examples=examples,
        examples_reason=examples_reason,
        validation=validation,
        batch=training.batch,
        accumulation=training.accumulation,
        epochs=training.epochs,
        steps=steps,
        steps_reason=steps_reason,
        hours=hours,
        timeout_hours=phase.session_timeout / 3600,
        accelerator=phase.accelerator.name,
        gpus=phase.accelerator.gpus,
        gpus_used=min(phase.accelerator.gpus, phase.processes),
        gpu_memory=phase.accelerator.memory,
        precision=phase.precision,
        precision_reason=phase.precision_reason,
        weight_bytes=weights,
        memory=setting.memory if setting else None,
        disk=disk,
        adapter_bytes=adapter,
        moved=None if adapter is None else adapter * len(ancestors),
        whole_model=weights if ancestors else 0,
        gates=gate_words(phase.gates),
        warnings=(
            *_time_warnings(phase, most_steps * training.step_seconds / 3600),
            *_space_warnings(phase, setting, disk),
        ),
    )


def gate_words(gates: Gates) -> tuple[str, ...]:
    """What a finished phase must have reached, gate by gate."""
    words = ["all epochs ran"] if gates.all_epochs else []
    if gates.max_loss is not None:
        words.append(f"the training loss ends at {gates.max_loss:g} or lower")
    if gates.min_loss_fall is not None:
        words.append(f"the training loss falls by {100 * gates.min_loss_fall:g} % or more")
    if gates.min_token_accuracy is not None:
        words.append(f"token accuracy is {100 * gates.min_token_accuracy:g} % or more")
    return (*words, "the pad id is right and the adapter is sound")


def _lora_words(lora: Lora) -> str:
    return f"rank {lora.r}, alpha {lora.alpha}, dropout {lora.dropout:g}, on {', '.join(lora.targets)}"


def describe_source(source: Source) -> str:
    """Where a source comes from, in a few words."""
    if source.kind == "huggingface":
        subset = f", {source.subset}" if source.subset else ""
        return f"{source.huggingface} on Hugging Face ({source.split}{subset})"
    if source.dataset:
        return f"{source.file or 'the only file'} of {source.dataset}"
    return f"{source.file} of this project"


def _examples(chain: Chain, phase: Phase) -> tuple[int, str, int]:
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


def _validation(data: Data, examples: int) -> int:
    """Examples kept aside, counted as the runtime counts them."""
    share = min(data.max_validation, int(examples * data.validation))
    return 1 if data.validation and not share and examples > 1 else share


def _steps(phase: Phase, examples: int) -> tuple[int, str]:
    training = phase.training
    together = training.batch * training.accumulation
    steps = training.epochs * math.ceil(examples / together)
    if training.max_steps is not None and training.max_steps < steps:
        return training.max_steps, "max_steps"
    return steps, f"{training.epochs} x {examples:,} examples / {together} a step"


def _time_warnings(phase: Phase, hours: float) -> list[str]:
    limit = phase.session_timeout / 3600
    if hours <= limit:
        return []
    return [
        f"up to {hours:.1f} h of training do not fit into a session of {limit:.1f} h: lower max_examples or epochs, "
        "set max_steps, or raise session_timeout (12h at most)"
    ]


def _setting(phase: Phase, shape: Shape | None) -> Setting | None:
    """What decides the memory of a step; None where the shape is not known, or has no such targets."""
    if shape is None or shape.chosen(phase.lora.targets) is None:
        return None
    training = phase.training
    return Setting(
        shape=shape,
        precision=phase.precision,
        quantization=training.quantization,
        batch=training.batch,
        accumulation=training.accumulation,
        length=training.max_length,
        rank=phase.lora.r,
        targets=phase.lora.targets,
        optimizer=training.optimizer,
        checkpointing=training.checkpointing,
    )


def _space_warnings(phase: Phase, setting: Setting | None, disk: int | None) -> list[str]:
    warnings = []
    machine = phase.accelerator
    if setting and machine.is_gpu and setting.memory.total > machine.memory:
        warnings.append(refusal(setting, machine, PHASE_FILE))
    if disk and disk > machine.disk:
        warnings.append(
            f"the merged base takes {disk / GIB:.1f} GiB of {machine.disk / GIB:.0f} GiB scratch: take a smaller model"
        )
    return warnings
