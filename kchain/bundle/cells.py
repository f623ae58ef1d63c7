"""A notebook's cells: the hashes by which a bundle is known, the BUNDLE literal in which the notebook carries its own,
and what changed between two notebooks.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from kchain.templates import NO_HASH

# Unchanged lines around a change.
CONTEXT = 3
# The first line of the parameters cell. The runtime modules and project files cannot look like it: their cells begin
# with %%writefile.
_LITERAL = re.compile(r'\ABUNDLE = "([0-9a-f]{64})"$', re.MULTILINE)


def canonical_hash(notebook: Mapping[str, Any], metadata: Mapping[str, Any], timeout: int) -> str:
    """sha256 of what a person reviews: cell ids, types and sources, the metadata and the session time-out.

    Outputs, notebook metadata and the BUNDLE literal do not count, so the hash survives Kaggle's re-serialising.

    Args:
        timeout: seconds.
    """
    cells = [[cell.get("id", ""), cell["cell_type"], without_hash(cell)] for cell in notebook["cells"]]
    return _digest({"cells": cells, "metadata": dict(metadata), "timeout": timeout})


def code_hash(notebook: Mapping[str, Any]) -> str:
    """sha256 of every code cell but the parameters: equal for two bundles that run the same code.

    Markdown does not count: the head of a rehearsal names another machine.
    """
    code = [text(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return _digest([source for source in code if _LITERAL.match(source) is None])


def find_hash(source: str) -> str | None:
    """The hash that a notebook (JSON text) says it has; None where it says none or is not a notebook."""
    try:
        cells = cells_of(source)["cells"]
    except ValueError:
        return None
    found = (_LITERAL.match(text(cell)) for cell in cells if cell["cell_type"] == "code")
    return next((match[1] for match in found if match), None)


def same_cells(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two notebooks have the same cells, types, sources and BUNDLE; for a copy that lost its cell ids."""
    one, other = ([(cell["cell_type"], text(cell)) for cell in each["cells"]] for each in (first, second))
    return one == other


def stamp(notebook: Mapping[str, Any], found: str) -> None:
    """Write the hash into the BUNDLE literal, in place."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["source"] = _LITERAL.sub(f'BUNDLE = "{found}"', text(cell))


def without_hash(cell: Mapping[str, Any]) -> str:
    """A cell's source with the BUNDLE literal back to zeros."""
    return _LITERAL.sub(f'BUNDLE = "{NO_HASH}"', text(cell)) if cell["cell_type"] == "code" else text(cell)


def text(cell: Mapping[str, Any]) -> str:
    """A cell's source as one text; files hold it as a list of lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def cells_of(notebook_text: str) -> dict[str, Any]:
    """The notebook in a JSON text, with every cell's type and source checked.

    Raises:
        ValueError: it is not a notebook; says why.
    """
    try:
        notebook = json.loads(notebook_text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list):
        raise ValueError("it has no list of cells")
    for number, cell in enumerate(cells, 1):
        source = cell.get("source") if isinstance(cell, dict) and isinstance(cell.get("cell_type"), str) else None
        lines = source if isinstance(source, list) else [source]
        if not all(isinstance(line, str) for line in lines):
            raise ValueError(f"cell {number} has no cell_type or no source")
    return dict(notebook)


def _digest(value: Any) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


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
