"""What changed between two notebooks, cell by cell over their stable ids."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from kchain.bundle.hash import without_hash

CONTEXT = 3


def cell_diff(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[str]:
    """Lines to print: a heading `=== id: what happened` for each cell that differs, then a unified diff of it.

    The BUNDLE literal is left out: it differs whenever anything does.

    Args:
        old: what was pushed last; None shows every cell of `new` as added.

    Returns:
        lines that begin with "=", "@", "+", "-" or a space; empty if no cell differs.
    """
    before, after = _by_id(old), _by_id(new)
    lines: list[str] = []
    for name in [*after, *(name for name in before if name not in after)]:
        lines += _cell_lines(name, before.get(name), after.get(name))
    kept_before = [name for name in before if name in after]
    if kept_before != [name for name in after if name in before]:
        lines.append("=== cells stand in another order")
    return lines


def _by_id(notebook: Mapping[str, Any] | None) -> dict[str, Mapping[str, Any]]:
    """Cells by id; one that lost its id goes by its place."""
    cells = notebook["cells"] if notebook else []
    return {str(cell.get("id") or f"cell {number}"): cell for number, cell in enumerate(cells, 1)}


def _cell_lines(name: str, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> list[str]:
    before, after = ([] if cell is None else without_hash(cell).split("\n") for cell in (old, new))
    if old is None:
        return [f"=== {name}: new", *(f"+{line}" for line in after)]
    if new is None:
        return [f"=== {name}: gone", *(f"-{line}" for line in before)]
    if (before, old["cell_type"]) == (after, new["cell_type"]):
        return []
    changes = list(difflib.unified_diff(before, after, n=CONTEXT, lineterm=""))[2:]
    return [f"=== {name}: changed", *changes]
