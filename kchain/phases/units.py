"""Memory and times for people: GiB as CUDA counts them."""

from __future__ import annotations

from kchain.phases.accelerators import GIB
from kchain.phases.memory import Memory


def memory(count: int) -> str:
    """Bytes as `14.6 GiB`."""
    return f"{count / GIB:.1f} GiB"


def memory_words(needed: Memory, available: int) -> str:
    """A memory plan in one line: `5.2 GiB at most, of 14.6 GiB: weights 0.9, …`, terms under 0.05 GiB left out."""
    terms = {name: f"{count / GIB:.1f}" for name, count in needed.as_dict().items() if name != "total"}
    parts = ", ".join(f"{name} {count}" for name, count in terms.items() if count != "0.0")
    of = f", of {memory(available)}" if available else ""
    return f"{memory(needed.total)} at most{of}: {parts}"


def duration(hours: float) -> str:
    """Hours as `4.3 h`, `12 min` or `40 s`."""
    if hours >= 1:
        return f"{hours:.1f}".removesuffix(".0") + " h"
    seconds = round(hours * 3600)
    return f"{round(seconds / 60)} min" if seconds >= 90 else f"{seconds} s"


def pace(seconds: float) -> str:
    """Seconds of a step as `0.4 s`, `12 s` or `3.5 min`."""
    if seconds >= 120:
        return f"{seconds / 60:.1f} min"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
