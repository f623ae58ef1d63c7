"""The memory of a training setting that is typed, not written in a chain: `kchain plan --model-config FILE …`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.table import Table
from rich.text import Text

from kchain.cli.common import console
from kchain.errors import InputError
from kchain.phases import Training
from kchain.phases.chain import choose_precision
from kchain.phases.fit import SettingPlan, setting_plan
from kchain.phases.machines import known_accelerator
from kchain.phases.memory import Setting
from kchain.phases.models import read_shape
from kchain.phases.schema import ChainTable, Lora
from kchain.phases.settle import choose, defaults, example_tokens
from kchain.units import GIB

Command = TypeVar("Command", bound=Callable[..., Any])

_PRECISIONS = ("fp16", "bf16", "fp32", "nf4")
_OPTIMIZERS = ("paged_adamw_8bit", "adamw_8bit", "adamw_torch")
_DEFAULT_ACCELERATOR = str(ChainTable.model_fields["accelerator"].default)
_TRAINING = defaults(Training())
_CHOSEN = "the fastest that fits"
# Option -> what of a setting it leaves open when it is not given. A length is never chosen: it is a matter of the data.
_FREE = {"batch": "batch", "checkpointing": "checkpointing", "precision": "quantization"}
_LORA = Lora()
# What stands beside each term of the table.
_WORDS = {
    "weights": "the frozen base model",
    "adapter": "LoRA weights in fp32",
    "optimizer": "their gradients and moments",
    "activations": "kept for the backward pass, and worked on in it",
    "logits": "what the loss holds of the scores over the vocabulary",
    "margin": "CUDA, cuBLAS, and what the allocator cannot use",
}


def setting_options(command: Command) -> Command:
    """Add the options of a setting; the command receives None for those not given."""
    count = click.IntRange
    options: list[tuple[str, dict[str, Any], str, object]] = [
        ("--accelerator", {"metavar": "NAME"}, "Machine shape.", _DEFAULT_ACCELERATOR),
        (
            "--precision",
            {"type": click.Choice(_PRECISIONS)},
            "nf4: base in 4 bits.",
            "as the machine has, nf4 if nothing else fits",
        ),
        ("--batch", {"type": count(1, 512)}, "Examples per GPU and pass.", _CHOSEN),
        ("--accumulation", {"type": count(1, 1024)}, "Batches per optimizer step.", "16 / batch"),
        ("--length", {"type": count(8, 131072)}, "Tokens per example.", _TRAINING.max_length),
        ("--rank", {"type": count(1, 512)}, "Rank of the adapter.", _LORA.r),
        ("--targets", {"metavar": "NAMES"}, "Modules that get an adapter.", ",".join(_LORA.targets)),
        ("--optimizer", {"type": click.Choice(_OPTIMIZERS)}, "As in [training].", _TRAINING.optimizer),
        ("--checkpointing/--no-checkpointing", {}, "Recompute activations, or keep them.", _CHOSEN),
    ]
    for name, settings, text, default in reversed(options):
        command = click.option(name, default=None, help=f"{text}  [default: {default}]", **settings)(command)
    return command


def work_out_answer(model_config: Path | None, phase: str | None, given: Mapping[str, Any]) -> SettingPlan:
    """Memory and time for the options that were typed.

    Batch, checkpointing and 4 bits are chosen where they are left out, with 16 examples a step; the rest is as in a
    chain without `[training]`.

    Raises:
        InputError: the options contradict each other, or name something that does not exist.
    """
    names = ", ".join("--no-checkpointing" if value is False else f"--{name}" for name, value in given.items())
    if model_config is None:
        raise InputError(f"{names}: needs --model-config FILE", "a chain has these settings in its files")
    if phase is not None:
        raise InputError(f"{names}: not together with a phase", f"leave out {phase}, or change the phase's file")
    shape = read_shape(model_config)
    word = given.get("precision")
    try:
        machine = known_accelerator(given.get("accelerator", _DEFAULT_ACCELERATOR))
        precision, reason = choose_precision("auto" if word in (None, "nf4") else word, machine)
    except ValueError as error:
        raise InputError(str(error).replace('use precision = "auto"', "leave --precision out")) from None
    setting = Setting(
        shape=shape,
        precision=precision,
        quantization="nf4" if word == "nf4" else "none",
        **_batch(given),
        length=given.get("length", _TRAINING.max_length),
        rank=given.get("rank", _LORA.r),
        targets=_targets(given.get("targets")),
        optimizer=given.get("optimizer", _TRAINING.optimizer),
        checkpointing=given.get("checkpointing", _TRAINING.checkpointing),
    )
    tokens, _ = example_tokens([], setting.length)
    free = {field for option, field in _FREE.items() if option not in given}
    if "accumulation" in given:
        free.discard("batch")
    choice = choose(setting, free, machine, tokens)
    reasons = (f"{precision}: {reason.replace('the phase file says', 'asked for')}", *choice.reasons)
    return setting_plan(choice.setting, machine, reasons, tokens)


def _batch(given: Mapping[str, Any]) -> dict[str, int]:
    """Batch and accumulation; where one is not given, such that a step has 16 examples, or as few more as can be."""
    together = _TRAINING.batch * _TRAINING.accumulation
    batch = given.get("batch") or max(1, together // given.get("accumulation", _TRAINING.accumulation))
    return {"batch": batch, "accumulation": given.get("accumulation") or max(1, together // batch)}


def print_answer(found: SettingPlan) -> None:
    """The plan as a person reads it."""
    terms = found.memory.as_dict()
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim", overflow="fold")
    for name, words in _WORDS.items():
        table.add_row(name, _gib(terms[name]), words)
    table.add_row("total", Text(_gib(terms["total"]), style="bold"), "at the highest point of a step")
    if found.available is not None:
        table.add_row("available", _gib(found.available), "on the GPU that trains")
    console.print(table)
    console.print()
    for reason in found.reasons[:-1]:
        console.print(Text(reason), soft_wrap=True)
    console.print(Text(found.reasons[-1], style="yellow" if found.fits is False else "bold"), soft_wrap=True)


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"


def _targets(text: str | None) -> tuple[str, ...]:
    if text is None:
        return _LORA.targets
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise InputError(f"--targets {text!r}: names of modules, with commas between them", "such as q_proj,v_proj")
    return names
