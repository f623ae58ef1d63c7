"""Sizes and times for people: decimal megabytes as Kaggle shows them, GiB for memory as CUDA does."""

from __future__ import annotations

from kchain.phases.accelerators import GIB


def size(count: int) -> str:
    """Bytes as `812 B`, `8.7 MB` or `15.2 GB` (powers of ten)."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} B"


def memory(count: int) -> str:
    """Bytes as `14.6 GiB`."""
    return f"{count / GIB:.1f} GiB"


def duration(hours: float) -> str:
    """Hours as `4.3 h`, `12 min` or `40 s`."""
    if hours >= 1:
        return f"{hours:.1f}".removesuffix(".0") + " h"
    seconds = round(hours * 3600)
    return f"{round(seconds / 60)} min" if seconds >= 90 else f"{seconds} s"
