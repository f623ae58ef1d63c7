"""What a phase will do before it does it: steps, hours, disk, and what moves from phase to phase. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kchain.phases.chain import Chain, Phase
from kchain.phases.fit import PHASE_FILE, advice, refusal
from kchain.phases.memory import HALF_BYTES, Memory, Setting, weight_bytes
from kchain.phases.models import FP32_BYTES, Shape, model_shape
from kchain.phases.schema import Gates, Lora
from kchain.phases.settle import example_tokens, known_lengths, setting_of
from kchain.phases.time import most_examples, most_steps, sessions, step_seconds, validation_examples
from kchain.phases.uses import EvaluationGates, Exporting, Generation, UseGates, UseTable
from kchain.units import GIB, duration, pace, size

# The gates of a phase in words, for whoever reviews it: every gate that will be asked, and no other.

# Key of `[gates]` -> what must be reached; shares are given in percent.
_LIMITS = {
    "max_loss": "the training loss ends at {:g} or lower",
    "max_eval_loss": "the validation loss is {:g} or lower",
    "max_forgotten": "the loss rises by {:g} nats or less on what earlier phases learned",
    "min_style_separation": "the longest style's answers are {:g} times as long as the shortest's, or more",
}
_SHARES = {
    "min_loss_fall": "the training loss falls by {:g} % or more",
    "min_token_accuracy": "token accuracy is {:g} % or more",
    "min_eos_rate": "{:g} % of the sampled answers end by themselves, or more",
    "min_success_rate": "the chain succeeds on {:g} % of the questions or more",
}


def gate_words(gates: Gates | UseGates, first: bool) -> tuple[str, ...]:
    """What a finished phase must have reached, gate by gate.

    Args:
        first: nothing was trained before it, so it is not asked what it forgot.
    """
    words = ["all epochs ran"] if isinstance(gates, Gates) and gates.all_epochs else []
    for key in type(gates).model_fields:
        limit = getattr(gates, key)
        if limit is None or (first and key == "max_forgotten"):
            continue
        if key in _LIMITS:
            words.append(_LIMITS[key].format(limit))
        elif key in _SHARES:
            words.append(_SHARES[key].format(100 * limit))
    if isinstance(gates, EvaluationGates) and gates.better:
        words.append("the chain is shown to be better than the base model")
    sound = "the adapter is sound" if isinstance(gates, Gates) else "it came to its end, on these very adapters"
    return (*words, f"the pad id is right and {sound}")


@dataclass(frozen=True)
class Plan:
    """The plan of one phase. None stands where the base model's shape is not known.

    Attributes:
        built_on: the ancestors whose adapters are merged first, root first.
        examples: most examples that are used, over all sources; `examples_reason` says what sets the cap, and which
            optional sources without a limit are not counted.
        validation: of these, kept aside to judge by.
        steps: optimizer steps, at most.
        seconds: of a step, estimated; `seconds_reason` says from what. The planned ones where the shape is not known.
        hours: steps x seconds.
        timeout_hours: when the target ends the session.
        sessions: that so many hours need, and `max_sessions` the phase may take.
        gpu_memory: usable bytes of the GPU that trains, 0 on a CPU.
        weight_bytes: of the frozen base model in its half-precision files.
        memory: of the GPU at the highest point of a step, term by term.
        disk: bytes of scratch for the merged base; 0 where there is nothing to merge.
        adapter_bytes: expected size of the adapter this phase makes.
        moved: bytes of adapters that come in from the ancestors.
        whole_model: bytes that would come in if the parent handed on its whole merged model.
        gates: what the result must have reached before the chain goes on, in words.
        choices: what `[training]` left open, and why it is what it is.
        advice: what would be better, though it is no fault.
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
    seconds: float
    seconds_reason: str
    hours: float
    timeout_hours: float
    sessions: int
    max_sessions: int
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
    choices: tuple[str, ...]
    advice: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def fits(self) -> bool:
        return not self.warnings

    def as_dict(self) -> dict[str, Any]:
        """For `kchain plan --json`."""
        return {**asdict(self), "memory": self.memory.as_dict() if self.memory else None}


def plan(chain: Chain, phase_name: str, shape: Shape | None = None) -> Plan:
    """Work out the plan of a phase that trains from the files alone.

    Args:
        shape: of the base model; None: what kchain knows of it.

    Raises:
        InputError: the chain has no phase of that name.
    """
    phase = chain.phase(phase_name)
    training = phase.training
    ancestors = chain.lineage(phase_name)
    shape = shape or model_shape(chain.model.source)
    setting = setting_of(phase, shape)
    seconds, seconds_reason = _seconds(chain, phase, setting)
    examples, examples_reason, ceiling = most_examples(chain, phase)
    validation = validation_examples(phase.data, examples)
    steps, steps_reason = most_steps(phase, examples - validation)
    hours = steps * seconds / 3600
    longest, _ = most_steps(phase, ceiling - validation_examples(phase.data, ceiling))
    rows = len(phase.tokens.all)
    adapter = shape.adapter_bytes(phase.lora.r, phase.lora.targets, rows) if shape else None
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
        sources=tuple(source.kind.words(source) for source in phase.data.sources),
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
        seconds=seconds,
        seconds_reason=seconds_reason,
        hours=hours,
        timeout_hours=phase.session_timeout / 3600,
        sessions=sessions(hours, phase.session_timeout),
        max_sessions=training.max_sessions,
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
        gates=gate_words(phase.gates, first=not ancestors),
        choices=phase.choices,
        advice=advice(phase, setting, known_lengths(phase.data, chain.files)),
        warnings=(*_time_warnings(phase, longest * seconds / 3600), *_space_warnings(phase, setting, disk)),
    )


def _lora_words(lora: Lora) -> str:
    return f"rank {lora.r}, alpha {lora.alpha}, dropout {lora.dropout:g}, on {', '.join(lora.targets)}"


def _seconds(chain: Chain, phase: Phase, setting: Setting | None) -> tuple[float, str]:
    """Seconds of a step, and where the figure comes from."""
    training = phase.training
    if setting is None:
        return training.step_seconds, "as step_seconds says"
    tokens, whence = example_tokens(known_lengths(phase.data, chain.files), training.max_length)
    return step_seconds(setting, phase.accelerator, tokens), f"an estimate, {whence}"


def session_words(one: Plan) -> str:
    """The most that a phase may take: `at most 3 sessions of 9 h = 27 h of GPU quota`."""
    if one.max_sessions == 1:
        return f"one session, which ends after {duration(one.timeout_hours)}"
    quota = " of GPU quota" if one.gpus else ""
    total = duration(one.max_sessions * one.timeout_hours)
    return f"at most {one.max_sessions} sessions of {duration(one.timeout_hours)} = {total}{quota}"


def time_words(one: Plan) -> str:
    """`about 2.4 h of training, 1 session: 1.9 s a step (an estimate; ...)`; judging comes on top."""
    needs = "1 session" if one.sessions == 1 else f"{one.sessions} sessions"
    return f"about {duration(one.hours)} of training, {needs}: {pace(one.seconds)} a step ({one.seconds_reason})"


def _time_warnings(phase: Phase, hours: float) -> list[str]:
    limit, allowed = phase.session_timeout / 3600, phase.training.max_sessions
    needed = sessions(hours, phase.session_timeout)
    if needed <= allowed:
        return []
    room = f"a session of {limit:.1f} h" if allowed == 1 else f"{allowed} sessions of {limit:.1f} h"
    return [
        f"up to {hours:.1f} h of training need {needed} sessions and do not fit into {room}: lower max_examples or "
        "epochs, set max_steps, or raise max_sessions or session_timeout (12h at most)"
    ]


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


# What a phase that trains nothing will do before it does it: on what, with which disk, and what it is asked. Pure.

# What Kaggle keeps of a session's output, in bytes.
OUTPUT_LIMIT = 20 * 10**9
# Bytes of a format as a share of the merged model's.
_use_plan_SHARES = {"safetensors": 1.0, "adapter": 0.0, "f16": 1.0, "q8_0": 0.53}


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
        output = sum(_use_plan_SHARES[use.type if each == "gguf" else each] for each in use.formats) * (merged or 0)
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
