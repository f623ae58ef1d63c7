"""py:percent text to cells.

kchain reads its own rendered text itself, and not through jupytext: jupytext ends a cell at every line that begins with
`# %%` (a runtime module or a user's description may hold one), gives each cell a new random id, and takes 0.3 s to
import. What is read here is the same format with one addition: inside a cell, such a line carries a backslash,
`# \\%%`, which is removed again. A test reads the text with jupytext too and compares the cells.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

HEADER = re.compile(r"^# %%(?P<markdown> \[markdown\])? (?P<options>id=.*)$", re.MULTILINE)
_MARK = re.compile(r"^(# *)(\\*)%%", re.MULTILINE)
_QUOTED = re.compile(r"^(# *)\\(\\*)%%", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """One cell: `name` is unique in its notebook and becomes part of its id."""

    name: str
    kind: Literal["code", "markdown"]
    source: str
    tags: tuple[str, ...] = ()


def quote(text: str) -> str:
    """Text that can stand inside a cell: none of its lines looks like the start of one."""
    return _MARK.sub(r"\1\2\\%%", text)


def comment(text: str) -> str:
    """Markdown as comment lines, quoted."""
    return quote("\n".join(f"# {line}".rstrip(" ") for line in text.strip("\n").split("\n")))


def read(text: str) -> tuple[Cell, ...]:
    """The cells of a rendered text, in order."""
    headers = list(HEADER.finditer(text))
    ends = [header.start() for header in headers[1:]] + [len(text)]
    return tuple(_cell(header, text[header.end() + 1 : end]) for header, end in zip(headers, ends, strict=True))


def _cell(header: re.Match[str], body: str) -> Cell:
    options = dict(part.split("=", 1) for part in header["options"].split(" "))
    source = _QUOTED.sub(r"\1\2%%", _without_gap(body))
    if header["markdown"]:
        source = "\n".join(line[2:] for line in source.split("\n"))
    return Cell(
        json.loads(options["id"]),
        "markdown" if header["markdown"] else "code",
        source,
        tuple(json.loads(options.get("tags", "[]"))),
    )


def _without_gap(body: str) -> str:
    """A cell ends with its line break and one empty line; whatever else stands there is the cell's own."""
    return body.removesuffix("\n\n") if body.endswith("\n\n") else body.removesuffix("\n")
