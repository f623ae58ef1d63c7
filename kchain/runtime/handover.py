"""What the notebook hands to the processes that train, and what they hand back: files in a folder on scratch."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .contract import Stopped
from .encode import IGNORED, Encoded
from .failure import OutOfMemory, Stop, explain, out_of_memory
from .files import write_json
from .tokenizer import TokenRow

JOB, OUTCOME, ADAPTER, CHECKPOINTS, LAUNCHER = "job.json", "outcome.json", "adapter", "checkpoints", "launcher.log"
TOKENS, LENGTHS = "tokens.npy", "lengths.npy"


@dataclass(frozen=True)
class Job:
    """What to train, and for how long.

    Attributes:
        parameters: the notebook's PARAMETERS.
        base: folder of the merged base model.
        batch: examples that a process holds at a time.
        processes: how many train together.
        checkpoint: folder to go on from; None begins at the beginning.
        deadline: time.monotonic() at which training must be over.
        step_seconds: planned time of a step with so many processes.
        logs: folder for TensorBoard.
        continued: folder of the adapter that is trained on; None for a new one.
        rows: tokens whose rows a new adapter trains.
    """

    parameters: dict[str, Any]
    base: str
    batch: int
    processes: int
    checkpoint: str | None
    deadline: float
    step_seconds: float
    logs: str
    continued: str | None
    rows: list[TokenRow]


@dataclass(frozen=True)
class Outcome:
    """What came out of a training run.

    Attributes:
        steps, epochs: how far it came, over all sessions; `most_steps` is the whole way.
        loss_first, loss_last: mean losses of the first and the last window, over all sessions.
        stopped: "time" or "slow" where it was cut short, None where it was not; `reason` says it in words.
        memory: bytes, the most that a process of the training held.
        skipped: steps of this session that changed nothing, since their gradients overflowed in fp16.
    """

    steps: int
    most_steps: int
    epochs: float
    loss_first: float
    loss_last: float
    stopped: Stopped | None
    reason: str | None
    memory: int
    skipped: int


@dataclass(frozen=True)
class Failure:
    """Why a process of the training ended.

    Attributes:
        at: time.time() when it was noticed; the first of all processes is the cause.
        told: whether the reason is one of ours, not the consequence of another process's end.
        step: where a smaller batch would help: the optimizer steps that were done, else None.
        examples: indices of the examples to look at.
    """

    at: float
    rank: int
    reason: str
    cure: str
    told: bool
    step: int | None
    examples: list[int]


def write_job(folder: Path, job: Job) -> None:
    """Writes what may change from one start to the next."""
    write_json(folder / JOB, asdict(job))


def read_job(folder: Path) -> Job:
    """The job of a folder."""
    told = json.loads((folder / JOB).read_text(encoding="utf-8"))
    rows = [TokenRow(row["token"], row["id"], tuple(row["begins_as"])) for row in told["rows"]]
    return Job(**{**told, "rows": rows})


def write_examples(folder: Path, examples: Sequence[Encoded]) -> None:
    """Writes encoded examples, 8 bytes a token."""
    tokens = np.stack([np.concatenate([each.ids for each in examples]), np.concatenate([e.labels for e in examples])])
    np.save(folder / TOKENS, tokens)
    np.save(folder / LENGTHS, np.array([len(each) for each in examples], dtype=np.int32))


def read_examples(folder: Path) -> list[Encoded]:
    """The examples of a folder; processes share the memory of the file."""
    ids, labels = np.load(folder / TOKENS, mmap_mode="c")
    ends = np.cumsum(np.load(folder / LENGTHS))
    begins = [0, *ends[:-1]]
    return [Encoded(ids[begin:end], labels[begin:end]) for begin, end in zip(begins, ends, strict=True)]


def nothing(pad_id: int) -> Encoded:
    """An example with nothing to learn, for a process that has none left in a step: the others wait for it."""
    return Encoded(np.full(2, pad_id, dtype=np.int32), np.full(2, IGNORED, dtype=np.int32))


def write_failure(folder: Path, rank: int, error: BaseException) -> None:
    """Tells why this process ends."""
    reason, cure = explain(error)
    told = isinstance(error, Stop | OutOfMemory) or out_of_memory(error)
    step = error.step if isinstance(error, OutOfMemory) else None
    examples = list(error.examples) if isinstance(error, Stop) else []
    failure = Failure(time.time(), rank, reason, cure, told, step, examples)
    write_json(folder / f"failure-{rank}.json", asdict(failure))


def read_failure(folder: Path) -> Failure | None:
    """The failure that was the cause: the first, and one of our own before the consequences of another's end."""
    files = (path.read_text(encoding="utf-8") for path in folder.glob("failure-*.json"))
    failures = [Failure(**json.loads(text)) for text in files]
    return min(failures, key=lambda failure: (not failure.told, failure.at), default=None)


def hang_file(folder: Path, rank: int) -> Path:
    """Where a process that hangs says in which line."""
    return folder / f"hang-{rank}.txt"


def clear(folder: Path) -> None:
    """Removes what an earlier start left, but not its checkpoints."""
    for pattern in ("failure-*.json", "hang-*.txt", OUTCOME):
        for path in folder.glob(pattern):
            path.unlink()
