"""The evaluation as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kchain.pages import render, write
from kchain.units import size


def page(report: Mapping[str, Any]) -> str:
    """The page of a report as `run.evaluate` makes it; what models said is escaped."""
    memory = {
        name: "unknown" if side["peak_bytes"] is None else size(side["peak_bytes"])
        for name, side in report["sides"].items()
    }
    return render("evaluation", "page.html.jinja", report=report, memory=memory)


def write_page(path: Path, report: Mapping[str, Any]) -> None:
    """Write the page.

    Raises:
        InputError: it cannot be written there.
    """
    write(path, page(report))
