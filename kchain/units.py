"""Bytes, times and paces for people."""

from __future__ import annotations

GIB = 2**30


def size(count: int) -> str:
    """Bytes as `812 B`, `8.7 MB` or `15.2 GB`: in powers of ten, as Kaggle shows files."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} B"


def gib(count: int) -> str:
    """Bytes of memory as `14.6 GiB`: in powers of two, as CUDA counts them."""
    return f"{count / GIB:.1f} GiB"


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
