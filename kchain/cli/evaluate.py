"""`kchain evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import Progress
from rich.table import Table

from kchain.cli.chat import precision_option
from kchain.cli.common import console, json_option, load_project, print_json, target_option
from kchain.cli.export import base_option
from kchain.errors import InputError
from kchain.runtime.contract import VALIDATION
from kchain.units import size
from kchain.uses.report import CHECKS

if TYPE_CHECKING:
    from kchain.uses.questions import Questions
    from kchain.uses.subject import Subject

# Columns that the table needs.
_WIDTH = 96


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

    Needs the base model on this machine; without it, write a phase file with kind = "evaluate" (docs/use-the-model.md).

    Needs: pip install "kchain[train]"
    """
    chain = load_project()
    from kchain.client.target import Target
    from kchain.orchestrator.finished import choose_phase
    from kchain.publish.content import read_subject
    from kchain.uses.questions import read_questions
    from kchain.uses.subject import need

    need("train", "torch", "transformers", "safetensors", "peft")
    place = Target(target or chain.target, chain.owner, chain.root)
    subject = read_subject(chain, choose_phase(chain, phase), place, base)
    file, written = data or _kept_aside(subject, check), data is not None
    questions = read_questions(file, check, subject.system_prompt, limit, chain.seed, written=written)
    report = _evaluate(subject, questions, check, max_tokens, precision)
    if html is not None:
        from kchain.uses.report import write_page

        write_page(html, report)
    if as_json:
        print_json(report)
        return
    _print(report)
    if html is not None:
        console.print(f"every answer: {html}", markup=False, soft_wrap=True)


def _kept_aside(subject: Subject, check: str) -> Path:
    """The examples that the phase's session did not train on."""
    path = subject.last.folder.parent / VALIDATION
    if check == "regex":
        raise InputError(
            f"{path}: the answers that a phase learns are no regular expressions",
            'give a file with "expect" in its lines: --data FILE',
        )
    if path.is_file():
        return path
    raise InputError(f"{path}: the session kept no questions aside", "give a file of your own: --data FILE")


def _evaluate(subject: Subject, questions: Questions, check: str, max_tokens: int, precision: str) -> dict[str, Any]:
    from kchain.uses.evaluate import evaluate

    with Progress(console=_errors(), transient=True) as progress:
        tasks = {name: progress.add_task(name, total=len(questions.asked)) for name in ("base", "chain")}
        return evaluate(
            subject,
            questions,
            check,
            max_tokens,
            precision,
            lambda name, count: progress.update(tasks[name], completed=count),
        )


def _errors() -> Any:
    """Progress goes to stderr: stdout may be read by a program."""
    from rich.console import Console

    return Console(stderr=True)


def _print(report: Mapping[str, Any]) -> None:
    data = report["data"]
    without = f" ({data['left_out']} lines hold none)" if data["left_out"] else ""
    console.print(
        f"{report['chain']} {report['phase']} on {data['asked']} of {data['held']} questions of {data['file']}{without}"
        f", check {report['check']}, {report['machine']}",
        markup=False,
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for name in ("success", "95 %", "mean", "p95", "tokens/s", "ended", "peak memory"):
        table.add_column(name, justify="right", no_wrap=True)
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
    # Whole lines, also where the terminal is narrow: it may wrap them, a cut figure helps nobody.
    console.print(table, width=max(console.width, _WIDTH), crop=False)
    console.print(report["verdict"]["words"], markup=False, soft_wrap=True)
    if report["probe"] is not None and not report["probe"]["agrees"]:
        console.print(
            f"The session that trained {report['phase']} recorded logits {report['probe']['difference']:.2f} away from "
            "those of the chain as loaded here: another base model, or weights in 4 bits on one side.",
            markup=False,
            soft_wrap=True,
        )
