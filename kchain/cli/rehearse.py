"""`kchain rehearse`."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kchain.cli.common import console, json_option, load_project, print_json, progress_console, say

if TYPE_CHECKING:
    from kchain.rehearse.run import Rehearsal, Rehearsed


@click.command()
@click.argument("phases", metavar="[PHASE]...", nargs=-1)
@click.option(
    "--tokenizer",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with the base model's tokenizer and config.json; weights are not needed.",
)
@click.option("--again", is_flag=True, help="Also phases that have not changed since their last rehearsal.")
@json_option
def rehearse(phases: tuple[str, ...], tokenizer: Path | None, again: bool, as_json: bool) -> None:
    """Run phases (default: the whole chain) on this machine's CPU, in minutes, before they cost quota.

    The same code cells run with a tiny random model of the base model's family and a few examples of every source.
    Phases that have not changed since their last rehearsal are skipped. At the end it lists what was rehearsed and what
    was not. Nothing is downloaded; real rows, the real tokenizer: docs/quickstart.md.

    Needs: pip install "kchain[train]"

    \b
    Exit codes: 0 all phases finished · 1 a phase failed · 2 bad input · 3 another rehearsal runs · 130 Ctrl-C
    """
    chain = load_project()
    from kchain.cli.progress import Terminal
    from kchain.rehearse.run import rehearse as run

    began = time.monotonic()
    with Terminal(progress_console(as_json)) as terminal:
        done = run(chain, phases, terminal, tokenizer=tokenizer, again=again)
    seconds = time.monotonic() - began
    if as_json:
        print_json(_as_json(done, seconds))
    else:
        _print(done, seconds)
    if (error := done.error()) is not None:
        raise error


def _print(done: Rehearsal, seconds: float) -> None:
    from kchain.cli.show import print_rehearsed
    from kchain.rehearse.account import not_rehearsed, rehearsed
    from kchain.units import duration

    print_rehearsed(console, done.outcomes)
    for heading, sentences in (("Rehearsed", rehearsed(done)), ("Not rehearsed", not_rehearsed(done))):
        if sentences:
            console.print(f"\n{heading}:", style="bold")
        for sentence in sentences:
            say(f"  - {sentence}")
    if done.error() is None:
        fresh = sum(outcome.fresh for outcome in done.outcomes)
        told = f"It took {duration(seconds / 3600)}." if fresh else "Nothing has changed since the last rehearsal."
        say(f"\n{told} Next: kchain review, then kchain watch")


def _as_json(done: Rehearsal, seconds: float) -> dict[str, Any]:
    from kchain.rehearse.account import not_rehearsed, rehearsed

    return {
        "chain": done.chain.name,
        "seconds": round(seconds, 1),
        "family": done.base.family,
        "tokenizer": done.base.whence or None,
        "sources": [asdict(stand) for stand in done.stands],
        "phases": [_row(outcome) for outcome in done.outcomes],
        "rehearsed": rehearsed(done),
        "not_rehearsed": not_rehearsed(done),
    }


def _row(outcome: Rehearsed) -> dict[str, Any]:
    result, failure = outcome.result, outcome.failure
    metrics = result.metrics if result is not None else {}
    return {
        "phase": outcome.phase,
        "state": "failed" if failure is not None else "rehearsed" if outcome.fresh else "unchanged",
        "reason": failure.reason.partition("\n")[0] if failure is not None else None,
        "advice": failure.hint if failure is not None else None,
        "steps": metrics.get("steps"),
        "loss_first": metrics.get("loss_first"),
        "loss_last": metrics.get("loss_last"),
        "seconds": result.seconds if result is not None else None,
        "adapter_bytes": result.bytes if result is not None and not result.found else None,
        "code_hash": outcome.code_hash,
        "differences": [asdict(each) for each in outcome.differences],
    }
