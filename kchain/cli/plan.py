"""`kchain plan`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from kchain.cli.common import console, in_project, json_option, load_project, phase_names, print_json, say
from kchain.cli.setting import print_answer, setting_options, work_out_answer
from kchain.phases.memory import memory_words
from kchain.units import duration, gib, size

if TYPE_CHECKING:
    from kchain.phases.plan import TrainingPlan, UsePlan


# Accounts differ; `kchain doctor` asks for the real figure.
WEEKLY_HOURS = 30


@click.command()
@click.argument("phase", required=False)
@click.option(
    "--model-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="config.json of a base model that kchain does not know.",
)
@setting_options
@json_option
def plan(phase: str | None, model_config: Path | None, as_json: bool, **setting: Any) -> None:
    """Show what PHASE (default: every phase) will do: data, parents, machine, time and memory.

    Computed from the files alone, without network. Counts are upper bounds: sources may hold fewer examples.

    With --model-config and any other option no chain is needed: it prints memory and time of a training step of that
    model. Batch, checkpointing and 4 bits are chosen where they are not given, with the reasons.
    """
    given = {name: value for name, value in setting.items() if value is not None}
    if given or (model_config and phase is None and not in_project()):
        answer = work_out_answer(model_config, phase, given)
        if as_json:
            print_json(answer.as_dict())
        else:
            print_answer(answer)
        return
    chain = load_project()
    from kchain.phases.models import read_shape
    from kchain.phases.plan import TrainingPlan, plan_of

    shape = read_shape(model_config) if model_config else None
    plans = [plan_of(chain, name, shape) for name in phase_names(chain, phase)]
    if as_json:
        print_json([each.as_dict() for each in plans])
        return
    say(f"{chain.name} of {chain.owner}, on {chain.model.source}")
    for each in plans:
        console.print()
        console.print(Text(f"{each.phase}  {each.title}", style="bold"), soft_wrap=True)
        console.print(plan_table(each))
    trained = [each for each in plans if isinstance(each, TrainingPlan)]
    if len(trained) > 1:
        _print_total(trained, chain.target == "kaggle")


def plan_table(one: TrainingPlan | UsePlan) -> Table:
    """The plan of a phase as a person reads it."""
    from kchain.phases.plan import TrainingPlan

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=10)
    table.add_column(overflow="fold")
    for name, words in rows(one) if isinstance(one, TrainingPlan) else use_rows(one):
        table.add_row(name, Text(words))
    for warning in one.warnings:
        table.add_row(Text("does not fit", style="yellow"), Text(warning))
    return table


def rows(one: TrainingPlan) -> list[tuple[str, str]]:
    """The plan of a phase, line by line; says what an unknown base model leaves open."""
    from kchain.phases.plan import session_words, time_words

    found = [
        ("what", one.description),
        ("kernel", one.kernel),
        ("base model", one.model),
        ("built on", ", then ".join(one.built_on) or "the base model as it is"),
        *[("data" if number == 0 else "", source) for number, source in enumerate(one.sources)],
        (
            "examples",
            f"{one.examples:,} at most: {one.examples_reason}; about {one.validation:,} of them to measure by",
        ),
        ("steps", f"{one.steps:,} at most: {one.steps_reason}"),
        ("recipe", one.recipe),
        ("LoRA", one.lora),
        (
            "batch",
            f"{one.batch} x {one.accumulation} = {one.batch * one.accumulation} examples a step, "
            f"learning rate {one.learning_rate:g}",
        ),
        ("time", time_words(one)),
        ("sessions", session_words(one)),
        ("machine", _machine(one)),
        ("arithmetic", f"{one.precision}: {one.precision_reason}"),
        *[("chosen" if number == 0 else "", choice) for number, choice in enumerate(one.choices)],
    ]
    if one.memory:
        found.append(("memory", memory_words(one.memory, one.gpu_memory)))
    elif one.gpus:
        found.append(("memory", "unknown, as the model's shape is: kchain plan --model-config config.json tells"))
    if one.disk:
        found.append(("scratch", f"{size(one.disk)} for the merged base"))
    if one.adapter_bytes is None:
        found.append(("adapter", "size unknown: kchain does not know this base model's shape"))
    else:
        found.append(("adapter", f"{size(one.adapter_bytes)} expected"))
    if one.moved and one.whole_model:
        whole = size(one.whole_model)
        found.append(("comes in", f"{size(one.moved)} of adapters; a whole merged model would be {whole}"))
    found += [("gates" if number == 0 else "", gate) for number, gate in enumerate(one.gates)]
    return found + [("better" if number == 0 else "", words) for number, words in enumerate(one.advice)]


def use_rows(one: UsePlan) -> list[tuple[str, str]]:
    """The plan of a phase that trains nothing, line by line."""
    machine = f"{one.accelerator}, 1 GPU used, {gib(one.gpu_memory)} usable" if one.gpus else "CPU"
    found = [
        ("what", one.description),
        ("kind", one.kind),
        ("kernel", one.kernel),
        ("base model", one.model),
        ("uses", ", then ".join(one.built_on)),
        *one.does,
        ("time", f"one session, which ends after {duration(one.timeout_hours)}"),
        ("machine", machine),
        ("arithmetic", f"{one.precision}: {one.precision_reason}"),
    ]
    if one.weight_bytes:
        found.append(("memory", f"{gib(one.weight_bytes)} of weights"))
    if one.disk:
        found.append(("scratch", f"{size(one.disk)} for the merged model"))
    if one.moved and one.whole_model:
        found.append(("comes in", f"{size(one.moved)} of adapters; a whole model would be {size(one.whole_model)}"))
    return found + [("gates" if number == 0 else "", gate) for number, gate in enumerate(one.gates)]


def _machine(one: TrainingPlan) -> str:
    if not one.gpus:
        return "CPU"
    used = f"{one.gpus_used} of {one.gpus} GPUs used" if one.gpus > 1 else "1 GPU"
    return f"{one.accelerator}: {used}, {gib(one.gpu_memory)} usable"


def _print_total(plans: list[TrainingPlan], kaggle: bool) -> None:
    hours = sum(one.hours for one in plans)
    words = f"{sum(one.steps for one in plans):,} steps, about {duration(hours)} of training at most"
    moved = sum(one.moved or 0 for one in plans)
    whole = sum(one.whole_model or 0 for one in plans)
    if moved and whole:
        words += f"; {size(moved)} of adapters move between phases, in place of {size(whole)} of whole models"
    gpu_hours = sum(one.hours for one in plans if one.gpus)
    if gpu_hours and kaggle:
        weeks = max(1, math.ceil(gpu_hours / WEEKLY_HOURS))
        time = "1 week" if weeks == 1 else f"{weeks} weeks"
        words += f". Kaggle's free tier gives about {WEEKLY_HOURS} GPU hours a week: {time}"
    say(f"\nIn all: {words}.")
