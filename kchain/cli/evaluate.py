"""`kchain evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from rich.progress import Progress

from kchain.cli.common import (
    base_option,
    console,
    json_option,
    load_project,
    new_table,
    precision_option,
    print_json,
    print_table,
    progress_console,
    say,
    target_of,
    target_option,
)
from kchain.errors import InputError, need
from kchain.units import size
from kchain.uses.report import CHECKS


@click.command()
@click.argument("phase", required=False)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Held-out questions, JSONL.  [default: the phase's validation set]",
)
@click.option("--check", type=click.Choice(tuple(CHECKS)), required=True, help="When an answer counts as a success.")
@click.option("--limit", type=click.IntRange(1), help="Questions at most, drawn with the chain's seed.")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True, help="Tokens per answer.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Also write a page with every answer.")
@precision_option
@base_option
@target_option
@json_option
def evaluate(
    phase: str | None,
    data: Path | None,
    check: str,
    limit: int | None,
    max_tokens: int,
    html: Path | None,
    precision: str,
    base: Path | None,
    target: str | None,
    as_json: bool,
) -> None:
    """Ask the base model and PHASE (default: the last one) the same questions, and say which is better.

    A line of FILE has messages, the last one being the expected answer, or prompt and completion; "expect" overrides
    the expected answer.

    \b
    exact     equals the expected answer
    contains  contains the expected text, in any case
    regex     matches the expected regular expression
    json      a JSON object or list
    python    Python that compiles
    shell     a script that bash can parse
    The last three look at the first code block, if there is one. Nothing is executed.

    Both sides answer greedily. Intervals of rates are Wilson's; verdicts are McNemar's exact test on success and a
    paired bootstrap on time, at 95 %.

    Needs the base model on this machine; without it: docs/use-the-model.md.

    Needs: pip install "kchain[train]"
    """
    chain = load_project()
    from kchain.orchestrator.finished import choose_phase
    from kchain.publish.content import read_subject
    from kchain.uses.questions import read_questions, validation_set
    from kchain.uses.report import write_page

    need("train", "torch", "transformers", "safetensors", "peft")
    subject = read_subject(chain, choose_phase(chain, phase), target_of(chain, target), base)
    if data is None and check == "regex":
        raise InputError(
            "the answers of a phase's validation set are not regular expressions",
            'give a file with "expect" in its lines: --data FILE',
        )
    file = data or validation_set(subject, "give a file of your own: --data FILE")
    questions = read_questions(file, check, subject.system_prompt, limit, chain.seed, written=data is not None)
    from kchain.uses.evaluate import evaluate as ask

    with Progress(console=progress_console(as_json=True), transient=True) as progress:
        tasks = {name: progress.add_task(name, total=len(questions.asked)) for name in ("base", "chain")}
        report = ask(
            subject,
            questions,
            check,
            max_tokens,
            precision,
            lambda name, count: progress.update(tasks[name], completed=count),
        )
    if html is not None:
        write_page(html, report)
    if as_json:
        print_json(report)
        return
    _print(report)
    if html is not None:
        say(f"every answer: {html}")


def _print(report: Mapping[str, Any]) -> None:
    data = report["data"]
    without = f" ({data['left_out']} lines hold none)" if data["left_out"] else ""
    say(
        f"{report['chain']} {report['phase']} on {data['asked']} of {data['held']} questions of {data['file']}{without}"
        f", check {report['check']}, {report['machine']}"
    )
    table = new_table("", ">success", ">95 %", ">mean", ">p95", ">tokens/s", ">ended", ">peak memory")
    for name, side in report["sides"].items():
        low, high = side["success_interval"]
        table.add_row(
            name,
            f"{side['passed']}/{side['questions']} = {side['success_rate']:.1%}",
            f"{low:.1%} - {high:.1%}",
            f"{side['mean_latency']:.2f} s",
            f"{side['p95_latency']:.2f} s",
            f"{side['tokens_per_second']:.1f}",
            f"{side['ended_rate']:.0%}",
            "unknown" if side["peak_bytes"] is None else size(side["peak_bytes"]),
        )
    print_table(console, table)
    say(report["verdict"]["words"])
    if report["probe"] is not None and not report["probe"]["agrees"]:
        say(
            f"The session that trained {report['phase']} recorded logits {report['probe']['difference']:.2f} away from "
            "those of the chain as loaded here: another base model, or weights in 4 bits on one side."
        )
