"""`kchain plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from rich.table import Table
from rich.text import Text

from kchain.cli.common import console, json_option, load_project, print_json
from kchain.phases.units import duration, memory, size

if TYPE_CHECKING:
    from kchain.phases.plan import Plan


@click.command()
@click.argument("phase", required=False)
@json_option
def plan(phase: str | None, as_json: bool) -> None:
    """Say what PHASE, or every phase, will do: on what data, built on whom, with which machine, time and disk.

    Worked out from the files alone; nothing is asked and nothing is written. "At most" is meant: sources may hold less.
    """
    chain = load_project()
    from kchain.phases.plan import plan as work_out

    names = [chain.phase(phase).name] if phase else [each.name for each in chain.phases]
    plans = [work_out(chain, name) for name in names]
    if as_json:
        print_json([each.as_dict() for each in plans])
        return
    console.print(f"{chain.name} of {chain.owner}, on {chain.model.source}", markup=False, soft_wrap=True)
    for each in plans:
        _print(each)
    if len(plans) > 1:
        _print_total(plans)


def _print(one: Plan) -> None:
    console.print()
    console.print(Text(f"{one.phase}  {one.title}", style="bold"), soft_wrap=True)
    console.print(plan_table(one))


def plan_table(one: Plan) -> Table:
    """The plan of a phase as a person reads it."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True, min_width=10)
    table.add_column(overflow="fold")
    for name, words in rows(one):
        table.add_row(name, Text(words))
    for warning in one.warnings:
        table.add_row(Text("does not fit", style="yellow"), Text(warning))
    return table


def rows(one: Plan) -> list[tuple[str, str]]:
    """The plan of a phase, line by line; what an unknown base model leaves open is said."""
    found = [
        ("what", one.description),
        ("kernel", one.kernel),
        ("base model", one.model),
        ("built on", ", then ".join(one.built_on) or "the base model as it is"),
        *[("data" if number == 0 else "", source) for number, source in enumerate(one.sources)],
        (
            "examples",
            f"{one.examples:,} at most: {one.examples_reason}; {one.validation:,} of them kept aside to measure by",
        ),
        ("steps", f"{one.steps:,} at most: {one.steps_reason}"),
        ("recipe", one.recipe),
        ("LoRA", one.lora),
        (
            "batch",
            f"{one.batch} x {one.accumulation} = {one.batch * one.accumulation} examples a step, "
            f"learning rate {one.learning_rate:g}",
        ),
        ("time", f"{duration(one.hours)} of training; the session ends after {duration(one.timeout_hours)}"),
        ("machine", _machine(one)),
        ("arithmetic", f"{one.precision}: {one.precision_reason}"),
    ]
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
    return found


def _machine(one: Plan) -> str:
    if not one.gpus:
        return "CPU"
    # The second T4 of Kaggle's machine stays idle: kchain trains in one process.
    used = f"{one.gpus_used} of {one.gpus} GPUs used" if one.gpus > 1 else "1 GPU"
    return f"{one.accelerator}: {used}, {memory(one.gpu_memory)} usable"


def _print_total(plans: list[Plan]) -> None:
    hours = sum(one.hours for one in plans)
    words = f"{sum(one.steps for one in plans):,} steps, {duration(hours)} of training at most"
    moved = sum(one.moved or 0 for one in plans)
    whole = sum(one.whole_model or 0 for one in plans)
    if moved and whole:
        words += f"; {size(moved)} of adapters move between phases, in place of {size(whole)} of whole models"
    if any(one.gpus for one in plans):
        # Requirement A15; accounts differ, and `kchain doctor` asks for the real figure.
        words += ". Kaggle's free tier gives about 30 GPU hours a week"
    console.print(f"\nIn all: {words}.", markup=False, soft_wrap=True)
