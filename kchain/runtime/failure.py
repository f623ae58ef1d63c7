"""Why a session stops, in words: what happened, and what to change."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Sequence
from typing import Any

from .contract import EVENT_PREFIX


def emit(event: str, **fields: Any) -> None:
    """Tells the outside what happens: one event on one line of stdout."""
    print(EVENT_PREFIX + json.dumps({"event": event, **fields}, allow_nan=False), flush=True)


def peak_memory() -> int:
    """Bytes: the most that torch held on the GPU, or that this process held where there is none."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    import resource  # not on Windows, where no session runs

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class Stop(Exception):
    """A reason to end the session, and what probably cures it.

    Args:
        examples: indices of the training examples that the reason is about.
    """

    def __init__(self, reason: str, cure: str, examples: Sequence[int] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.cure = cure
        self.examples = examples


class OutOfMemory(Exception):
    """A training step does not fit; a smaller batch may. `step`: the optimizer steps that were done."""

    def __init__(self, error: BaseException, step: int) -> None:
        super().__init__(f"{type(error).__name__}: {error}")
        self.step = step


OUT_OF_MEMORY = (
    'switch training.checkpointing on, lower training.max_length, or set training.quantization = "nf4"; halve '
    "training.batch and double training.accumulation (same result); fewer examples do not help GPU memory"
)
# What torch says when it gets no memory: from CUDA's allocator, from cuBLAS, from the allocator of a CPU.
MEMORY_WORDS = ("out of memory", "cublas_status_alloc_failed", "can't allocate memory")
# Words of an error's text or type -> cure; the first that is found counts.
CURES = (
    ("out of memory", OUT_OF_MEMORY),
    ("outofmemory", OUT_OF_MEMORY),
    ("can't allocate memory", OUT_OF_MEMORY),
    ("memoryerror", "the machine's own memory is full: lower data.max_examples or set a limit on the largest source"),
    ("unscale fp16 gradients", "a trainable weight is not fp32: do not cast the adapter to half precision"),
    ("incompatible version of torchao", 'add "torchao" to what the environment uninstalls'),
    ("no module named", "a package is missing: turn internet on, so that the install cell can fetch it"),
    ("connection", "the network could not be reached: turn internet on for this phase, or try again later"),
    ("keyboardinterrupt", "the session was interrupted, by a person or by its time limit: push again"),
)


def explain(error: BaseException) -> tuple[str, str]:
    """Reason and cure of any error that ends a session."""
    if isinstance(error, Stop):
        return error.reason, error.cure
    if isinstance(error, OutOfMemory):
        return str(error), OUT_OF_MEMORY
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return reason, "the disk is full: use a smaller base model, or fewer epochs (one checkpoint each)"
    known = (cure for words, cure in CURES if words in reason.lower())
    return reason, next(known, "read the traceback of the cell that failed")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short: the GPU's, or the machine's own where it trains."""
    words = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(said in words for said in MEMORY_WORDS)
    )
