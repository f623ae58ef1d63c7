"""What `kchain data check` found, as a person reads it."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kchain.data import Checked
from kchain.runtime.data import COUNTS
from kchain.runtime.quality import WORDS

REJECTED = 3  # rows that could not be used, that are shown
WIDTH = 110  # columns of the terminal that the widest table needs


def print_checked(console: Console, one: Checked) -> None:
    """Sources, faults, lengths, and examples of what there is too much of."""
    found = one.found
    verdict = Text("not good enough", "red") if one.problems else Text("good enough", "green")
    console.print(Text(one.name, "bold"), verdict, soft_wrap=True)
    console.print(f"{found['train']:,} examples to learn from, {found['validation']:,} to judge by", soft_wrap=True)
    if one.absent:
        absent = ", ".join(one.absent)
        console.print(f"not on this machine, so not looked at: {absent} (--with NAME=PATH)", markup=False)
    # Whole lines, also where the terminal is narrow: it may wrap them.
    wide = Console(file=console.file, width=max(console.width, WIDTH), force_terminal=console.is_terminal)
    wide.print(_sources(one), highlight=False)
    for source in found["sources"]:
        if source["error"]:
            console.print(f"source {source['name']} is skipped: {source['error']}", markup=False, soft_wrap=True)
    wide.print(_faults(one), highlight=False)
    for what, lengths in (("examples", found["lengths"]), ("answers", found["answers"])):
        cap = f", cut at {lengths['cap']:,}" if lengths["cap"] else ""
        told = (
            f"median {lengths['median']:,}, 95 % up to {lengths['p95']:,}, at most {lengths['max']:,} {lengths['unit']}"
        )
        console.print(f"{what}: {told}{cap}", soft_wrap=True)
    _print_rejected(console, one)
    for problem in one.problems:
        console.print(Text(problem, "red"), soft_wrap=True)
    for name, fault in found["faults"].items():
        for shown in fault["shown"] if fault["share"] > one.most.get(name, 1.0) else ():
            console.print(Text(f"  {name}: {_short(shown)}"), soft_wrap=True)
    console.print()


def _sources(one: Checked) -> Table:
    table = _table("source", *COUNTS)
    for source in one.found["sources"]:
        table.add_row(Text(source["name"]), *(f"{source[count]:,}" for count in COUNTS))
    return table


def _faults(one: Checked) -> Table:
    table = _table("fault", "count", "of", "share", "allowed", "meaning")
    for name, fault in one.found["faults"].items():
        most = one.most.get(name, 1.0)
        table.add_row(
            Text(name, "red" if fault["share"] > most else ""),
            f"{fault['count']:,}",
            f"{fault['of']:,}",
            f"{fault['share']:.2%}",
            f"{most:.0%}",
            WORDS[name],
        )
    return table


def _short(shown: dict[str, str]) -> str:
    prompt, answer = (" ".join(str(shown[part]).split())[:60] for part in ("prompt", "answer"))
    return f"{prompt} -> {answer}"


def _print_rejected(console: Console, one: Checked) -> None:
    for row in one.rejected[:REJECTED]:
        told = f"left out: {row['file']} line {row['line']}: {row['reason']}"
        console.print(told, markup=False, soft_wrap=True)
    more = len(one.rejected) - REJECTED
    if more > 0:
        console.print(f"and {more} more: --rejected FILE", soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, column in enumerate(columns):
        words = column == "meaning" or number == 0
        table.add_column(column, justify="left" if words else "right", no_wrap=True)
    return table
