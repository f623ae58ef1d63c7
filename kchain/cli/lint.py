"""`kchain lint`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kchain.cli.common import console, json_option, print_json, say

if TYPE_CHECKING:
    from kchain.bundle.lint import Finding

_COLOURS = {"error": "red", "warning": "yellow"}


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...")
@json_option
def lint(paths: tuple[Path, ...], as_json: bool) -> None:
    """Check notebook folders for what fails on Kaggle, whoever wrote them.

    PATH is a folder with a notebook (or script) and its kernel-metadata.json, or one of these files. Exit code 1 if
    there is an error; warnings alone are 0.
    """
    from kchain.bundle.lint import lint as check

    found = {path: check(path.parent if path.is_file() else path) for path in paths}
    if as_json:
        print_json([{"path": str(path), "findings": [asdict(one) for one in all_]} for path, all_ in found.items()])
    else:
        for path, findings in found.items():
            _print(path, findings)
    if any(one.severity == "error" for findings in found.values() for one in findings):
        raise click.exceptions.Exit(1)


def _print(path: Path, findings: list[Finding]) -> None:
    errors = sum(one.severity == "error" for one in findings)
    count = f"{_count(errors, 'error')}, {_count(len(findings) - errors, 'warning')}" if findings else "nothing found"
    say(f"{path}: {count}")
    for one in findings:
        console.print(f"\n  {one.rule} {one.severity}", style=_COLOURS[one.severity], end="")
        say(f"  {one.where}: {one.message}")
        say(f"    why   {one.reason}\n    cure  {one.cure}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
