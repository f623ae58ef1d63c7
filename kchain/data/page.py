"""One page about examples: faults with examples, histograms as SVG. Self-contained, no script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kchain import __version__
from kchain.data.check import Checked
from kchain.pages import render, write
from kchain.runtime.quality import WORDS

WIDTH, HEIGHT = 560, 120  # of a histogram, in its own units
GAP = 2
REJECTED = 20  # rejected rows on the page


def write_page(path: Path, checked: Sequence[Checked]) -> None:
    """Write the page; it is whole or not there.

    Raises:
        InputError: it cannot be written there.
    """
    shown = [_section(one) for one in checked]
    write(path, render("data", "page.html.jinja", sections=shown, version=__version__, width=WIDTH, height=HEIGHT))


def _section(one: Checked) -> dict[str, Any]:
    faults = []
    for name, fault in one.found["faults"].items():
        most = one.most.get(name)
        bad = most is not None and fault["share"] > most
        faults.append({**fault, "name": name, "words": WORDS[name], "most": most, "bad": bad})
    return {
        "name": one.name,
        "problems": one.problems,
        "absent": one.absent,
        "found": one.found,
        "faults": faults,
        "histograms": [
            ("Length of the examples", one.found["lengths"], bars(one.found["lengths"]["histogram"])),
            ("Length of the answers", one.found["answers"], bars(one.found["answers"]["histogram"])),
        ],
        "rejected": one.rejected[:REJECTED],
    }


def bars(histogram: list[list[int]]) -> list[dict[str, Any]]:
    """Rectangles of a histogram, and what a pointer over one is told. A bar that holds anything can be seen."""
    if not histogram:
        return []
    highest = max(count for _, count in histogram)
    step = WIDTH / len(histogram)
    drawn = []
    for number, (upper, count) in enumerate(histogram):
        height = max(2.0, HEIGHT * count / highest) if count else 0.0
        lower = histogram[number - 1][0] if number else 0
        drawn.append(
            {
                "x": round(number * step, 1),
                "y": round(HEIGHT - height, 1),
                "width": round(max(1.0, step - GAP), 1),
                "height": round(height, 1),
                "words": f"{lower:,} to {upper - 1:,}: {count:,}",
            }
        )
    return drawn
