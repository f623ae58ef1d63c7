"""Bytes for people, as Kaggle shows them: in powers of ten."""

from __future__ import annotations


def size(count: int) -> str:
    """Bytes as `812 B`, `8.7 MB` or `15.2 GB`."""
    for unit, step in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} B"
