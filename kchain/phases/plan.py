"""What a phase will do before it does it: steps, hours, disk, what moves between phases, what must be reached. Pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from kchain.phases.chain import Chain, Phase
from kchain.phases.fit import PHASE_FILE, advice, refusal
from kchain.phases.memory import HALF_BYTES, Memory, weight_bytes
from kchain.phases.models import FP32_BYTES, Shape, model_shape
from kchain.phases.schema import Gates
from kchain.phases.settle import example_tokens, known_lengths, setting_of
from kchain.phases.time import most_examples, most_steps, sessions, step_seconds, validation_examples
from kchain.phases.uses import EvaluationGates, Exporting, Generation, UseGates, UseTable
from kchain.units import GIB, duration, pace, size

# What Kaggle keeps of a session's output, in bytes.
OUTPUT_LIMIT = 20 * 10**9
# What the model that a phase makes takes in a format, as a share of its fp16 weights.
FORMAT_SHARES = {"safetensors": 1.0, "adapter": 0.0, "f16": 1.0, "q8_0": 0.53}
FORMATS = {
    "safetensors": "the whole model for transformers, fp16",
    "adapter": "one adapter for the original base model",
    "gguf": "a file for llama.cpp ({})",
}
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
    sound = "the adapter is sound" if isinstance(gates, Gates) else "it ended, on these very adapters"
    return (*words, f"the pad id is right and {sound}")


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """What the plans of all phases have in common. None stands where the base model's shape is not known.

    Attributes:
        built_on: the ancestors whose adapters it needs, root first.
        gpus_used: of the machine's.
        gpu_memory: usable bytes of one of them, 0 on a CPU.
        weight_bytes: of a phase that trains, the frozen base model in its half-precision files; of one that answers,
            the model in the precision in which it does; None where nothing is loaded.
        disk: bytes of scratch for the merged model; 0 where there is nothing to merge.
        moved: bytes of adapters that come in from the ancestors.
        whole_model: bytes that would come in if the parent handed on its whole merged model.
        timeout_hours: when the target ends the session.
        gates: what the result must have reached before the chain goes on, in words.
        warnings: what does not fit, with what to change.
    """

    phase: str
    title: str
    description: str
    kernel: str
    model: str
    built_on: tuple[str, ...]
    accelerator: str
    gpus: int
    gpus_used: int
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


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(PhasePlan):
    """The plan of a phase that trains.

    Attributes:
        examples: most examples that are used, over all sources; `examples_reason` says what sets the cap, and which
            optional sources without a limit are not counted.
        validation: of these, kept aside to judge by.
        steps: optimizer steps, at most.
        seconds: of a step, estimated; `seconds_reason` says from what. The planned ones where the shape is not known.
        hours: steps x seconds.
        sessions: that so many hours need, and `max_sessions` the phase may take.
        memory: of the GPU at the highest point of a step, term by term.
        adapter_bytes: expected size of the adapter this phase makes.
        choices: what `[training]` left open, and why it is what it is.
        advice: what would be better, though it is not a fault.
    """

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
    sessions: int
    max_sessions: int
    memory: Memory | None
    adapter_bytes: int | None
    choices: tuple[str, ...]
    advice: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For `kchain plan --json`; the memory with its sum."""
        return {**asdict(self), "memory": self.memory.as_dict() if self.memory else None}


@dataclass(frozen=True, kw_only=True)
class UsePlan(PhasePlan):
    """The plan of a phase that uses what another one trained.

    Attributes:
        kind: what it does: "evaluate", "export" or "generate".
        does: what it does, row by row.
    """

    kind: str
    does: tuple[tuple[str, str], ...]


def plan_of(chain: Chain, phase_name: str, shape: Shape | None = None) -> TrainingPlan | UsePlan:
    """Work out the plan of a phase from the files alone.

    Args:
        shape: of the base model; None: what kchain knows of it.

    Raises:
        InputError: the chain has no phase of that name.
    """
    phase = chain.phase(phase_name)
    shape = shape or model_shape(chain.model.source)
    machine, lineage = phase.accelerator, chain.lineage(phase_name)
    adapters = [shape.adapter_bytes(each.lora.r, each.lora.targets, len(each.tokens.all)) for each in lineage if shape]
    # Merged weights are written as fp16, whatever precision trains or answers.
    whole = shape.parameters * HALF_BYTES if shape else None
    merges = phase.use is not None or bool(chain.merged(phase_name))
    common: dict[str, Any] = {
        "phase": phase.name,
        "title": phase.title,
        "description": phase.description,
        "kernel": chain.kernel(phase_name),
        "model": chain.model.source,
        "built_on": tuple(ancestor.name for ancestor in lineage),
        "accelerator": machine.name,
        "gpus": machine.gpus,
        "gpus_used": min(machine.gpus, phase.processes),
        "gpu_memory": machine.memory,
        "precision_reason": phase.precision_reason,
        "disk": whole if merges else 0,
        "moved": None if shape is None or None in adapters else sum(each or 0 for each in adapters),
        "whole_model": whole if lineage else 0,
        "timeout_hours": phase.session_timeout / 3600,
        "gates": gate_words(phase.gates, first=not lineage),
    }
    scratch = []
    if merges and whole and whole > machine.disk:
        room = f"{machine.disk / GIB:.0f} GiB scratch"
        scratch = [f"the merged model takes {whole / GIB:.1f} GiB of {room}: take a smaller model"]
    if phase.use is None:
        return _training_plan(chain, phase, shape, {**common, "weight_bytes": whole}, scratch)
    return _use_plan(phase, phase.use, shape, common, scratch)


def training_plan(chain: Chain, phase_name: str, shape: Shape | None = None) -> TrainingPlan:
    """As `plan_of`, of a phase that trains.

    Raises:
        InputError: the chain has no such phase.
    """
    found = plan_of(chain, chain.trained_phase(phase_name).name, shape)
    assert isinstance(found, TrainingPlan)
    return found


def _training_plan(
    chain: Chain, phase: Phase, shape: Shape | None, common: dict[str, Any], scratch: list[str]
) -> TrainingPlan:
    training, setting, lengths = phase.training, setting_of(phase, shape), known_lengths(phase.data, chain.files)
    seconds, seconds_reason = training.step_seconds, "as step_seconds says"
    if setting is not None:
        tokens, whence = example_tokens(lengths, training.max_length)
        seconds, seconds_reason = step_seconds(setting, phase.accelerator, tokens), f"an estimate, {whence}"
    examples, examples_reason, ceiling = most_examples(chain, phase)
    validation = validation_examples(phase.data, examples)
    steps, steps_reason = most_steps(phase, examples - validation)
    longest, _ = most_steps(phase, ceiling - validation_examples(phase.data, ceiling))
    hours, lora = steps * seconds / 3600, phase.lora
    memory = setting.memory if setting else None
    too_large = setting and phase.accelerator.is_gpu and setting.memory.total > phase.accelerator.memory
    memory_warnings = [refusal(setting, phase.accelerator, PHASE_FILE)] if setting and too_large else []
    return TrainingPlan(
        **common,
        precision=phase.precision,
        sources=tuple(source.kind.words(source) for source in phase.data.sources),
        recipe=phase.data.recipe,
        lora=f"rank {lora.r}, alpha {lora.alpha}, dropout {lora.dropout:g}, on {', '.join(lora.targets)}",
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
        sessions=sessions(hours, phase.session_timeout),
        max_sessions=training.max_sessions,
        memory=memory,
        adapter_bytes=shape.adapter_bytes(lora.r, lora.targets, len(phase.tokens.all)) if shape else None,
        choices=phase.choices,
        advice=advice(phase, setting, lengths),
        warnings=(*_time_warnings(phase, longest * seconds / 3600), *memory_warnings, *scratch),
    )


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


def _use_plan(phase: Phase, use: UseTable, shape: Shape | None, common: dict[str, Any], scratch: list[str]) -> UsePlan:
    machine, whole, quantization = phase.accelerator, common["disk"], phase.training.quantization
    weights, warnings = None, list[str]()
    if isinstance(use, Exporting):
        shares = (FORMAT_SHARES[use.type if each == "gguf" else each] for each in use.formats)
        output = int(sum(shares) * (whole or 0))
        if output > OUTPUT_LIMIT:
            warnings.append(f"the output takes {size(output)}; Kaggle keeps {size(OUTPUT_LIMIT)}: name fewer formats")
    elif shape:
        weights = weight_bytes(shape, FP32_BYTES if phase.precision == "fp32" else HALF_BYTES, quantization)
        if machine.is_gpu and weights > machine.memory:
            warnings.append(
                f"the model takes {weights / GIB:.1f} GiB of {machine.memory / GIB:.1f} GiB: set accelerator to a "
                f'larger machine, or quantization = "nf4" in {phase.after}'
            )
    return UsePlan(
        **common,
        kind=phase.kind,
        does=does_words(use, phase),
        precision=phase.precision if quantization == "none" else f"{quantization}, computing in {phase.precision}",
        weight_bytes=weights,
        warnings=(*warnings, *scratch),
    )


def does_words(use: UseTable, phase: Phase) -> tuple[tuple[str, str], ...]:
    """What the phase does, row by row."""
    if isinstance(use, Exporting):
        return (("makes", ", ".join(FORMATS[each].format(use.type) for each in use.formats)),)
    if isinstance(use, Generation):
        asked = [f"{len(use.prompts)} prompts"] if use.prompts else []
        asked += [f"those of {use.file}"] if use.file else []
        styles = f", each in {', '.join(use.styles)}" if use.styles else ""
        drawn = f"temperature {use.temperature:g}, top_p {use.top_p:g}" if use.temperature else "the likeliest token"
        return (
            ("answers", f"{' and '.join(asked)}{styles}; then whoever opens the notebook"),
            ("how", f"{use.max_tokens:,} tokens at most, {drawn}"),
        )
    questions = use.file or f"the validation set of {phase.after}"
    return (
        ("asks", f"the base model and the chain, {use.limit:,} questions at most, of {questions}"),
        ("success", f"check {use.check}; answers of {use.max_tokens:,} tokens at most"),
    )


def session_words(one: TrainingPlan) -> str:
    """The most that a phase may take: `at most 3 sessions of 9 h = 27 h of GPU quota`."""
    if one.max_sessions == 1:
        return f"one session, which ends after {duration(one.timeout_hours)}"
    quota = " of GPU quota" if one.gpus else ""
    total = duration(one.max_sessions * one.timeout_hours)
    return f"at most {one.max_sessions} sessions of {duration(one.timeout_hours)} = {total}{quota}"


def time_words(one: TrainingPlan) -> str:
    """`about 2.4 h of training, 1 session: 1.9 s a step (an estimate; ...)`; judging comes on top."""
    needs = "1 session" if one.sessions == 1 else f"{one.sessions} sessions"
    return f"about {duration(one.hours)} of training, {needs}: {pace(one.seconds)} a step ({one.seconds_reason})"
