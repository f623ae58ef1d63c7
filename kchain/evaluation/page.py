"""The evaluation as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from kchain.units import size


def page(report: Mapping[str, Any]) -> str:
    """The page of a report as `run.evaluate` makes it; what models said is escaped."""
    environment = Environment(
        loader=PackageLoader("kchain.evaluation", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["size"] = lambda count: "unknown" if count is None else size(count)
    return environment.get_template("page.html.jinja").render(report=report)


def write_page(path: Path, report: Mapping[str, Any]) -> None:
    """Write the page under another name and rename it: it is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(page(report), encoding="utf-8")
    partial.replace(path)
