"""What a session tells the outside while it runs: one `kchain: {json}` line per event."""

from __future__ import annotations

import json
import sys
from typing import Any


def emit(event: str, **fields: Any) -> None:
    """Prints one event on one line of stdout."""
    print("kchain: " + json.dumps({"event": event, **fields}, allow_nan=False), flush=True)


def peak_memory() -> int:
    """Bytes: the most that torch held on the GPU, or that this process held where there is none."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource  # not on Windows, where no session runs

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
