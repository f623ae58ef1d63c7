"""The most memory that a part of a run held: of the GPU where there is one, of the process otherwise."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def begin_peak() -> None:
    """Begin to measure anew. Linux and CUDA alone can; elsewhere there is no figure."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        _CLEAR.write_text("5", encoding="ascii")  # the kernel's word for "set the high-water mark back"


def peak() -> int | None:
    """Bytes since `begin_peak`: allocated on the GPU, or resident in memory; None where nobody can say."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii")) if _STATUS.exists() else None
    return int(found[1]) * 1024 if found else None
