"""Trainings as a notebook starts them: a folder on scratch, the launcher in a process of its own, what came of it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kchain.runtime import handover
from kchain.runtime.encode import IGNORED, Encoded

from .bench import LONGEST_PART, T4_MEMORY, Bench, environment

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
PAD = 2
FIRST_WORD = 16  # ids below are those of tokens that mean something, and those that kchain tries a model with
DRIVER = """
import json, sys
from pathlib import Path
from kchain.runtime import handover, launch
from kchain.runtime.failure import Stop
folder = Path(sys.argv[1])
try:
    trained = launch.train(folder, handover.read_job(folder), lambda index: f"example {index}")
    outcome = trained.outcome
    print("trained:", json.dumps([outcome.steps, outcome.skipped, trained.job.batch, trained.recovered]))
except Stop as stop:
    print("stopped:", json.dumps([stop.reason, stop.cure]))
"""


@dataclass(frozen=True)
class Run:
    """What came of a training.

    Attributes:
        trained: steps, skipped steps, batch and recoveries; None where it stopped.
        stopped: reason and cure; None where it did not.
        seen: what the observer wrote, one for each start of a worker that reached its training.
        said: everything that was printed.
    """

    folder: Path
    trained: list[Any] | None
    stopped: list[str] | None
    events: list[dict[str, Any]]
    seen: list[dict[str, Any]]
    said: str
    seconds: float

    @property
    def losses(self) -> dict[int, float]:
        """The loss of each step; a step that was trained again stands with its last one."""
        return {event["step"]: event["loss"] for event in self.events if event["event"] == "step"}

    def event(self, name: str) -> dict[str, Any]:
        """The last event of a kind."""
        return next((event for event in reversed(self.events) if event["event"] == name), {})

    def last(self) -> dict[str, Any]:
        """What the observer saw in the last start; it must have got there."""
        self.must_train()
        return self.seen[-1]

    def must_train(self) -> None:
        """Raises with what was said where a training did not end well."""
        if self.trained is None or not self.seen:
            log = self.folder / handover.LAUNCHER
            words = [*self.said.splitlines(), *(log.read_text(errors="replace").splitlines() if log.is_file() else [])]
            last = "\n".join(words[-12:])
            raise RuntimeError(f"{self.folder.name} did not train, or was not seen: {self.stopped or last}")


def train(
    bench: Bench,
    name: str,
    base: Path,
    examples: Sequence[Encoded],
    wishes: dict[str, Any] | None = None,
    checkpoint: Path | None = None,
    **changes: Any,
) -> Run:
    """Trains in a folder of this name as a notebook does: job and examples on scratch, `launch.train`, workers.

    Args:
        wishes: for the observer, beside a T4's memory and kernels.
        changes: of the parameters, `lora__r` for `["lora"]["r"]`.
    """
    folder = bench.folder / "runs" / name
    folder.mkdir(parents=True)
    handover.write_examples(folder, examples)
    values = parameters(bench.cuda, **{"training__precision": bench.precision, **changes})
    handover.write_job(folder, job(values, base, folder, checkpoint))
    wishes = {"memory": T4_MEMORY, "t4": values["training"]["precision"] == "fp16", **(wishes or {})}
    with bench.lanes:
        began = time.monotonic()
        said = _drive(folder, wishes, bench.left(LONGEST_PART))
        seconds = time.monotonic() - began
    (folder / "said.txt").write_text(said)
    return Run(
        folder=folder,
        trained=_told(said, "trained"),
        stopped=_told(said, "stopped"),
        events=[json.loads(line[8:]) for line in said.splitlines() if line.startswith("kchain: ")],
        seen=[json.loads(path.read_text()) for path in sorted(folder.glob("seen-*.json"))],
        said=said,
        seconds=round(seconds, 1),
    )


def parameters(cuda: bool, **changes: Any) -> dict[str, Any]:
    """What a training worker reads of a notebook's PARAMETERS."""
    values: dict[str, Any] = {
        "seed": 42,
        "pad": {"token": "<end>", "id": PAD},
        "lora": {"r": 16, "alpha": 32, "dropout": 0.0, "targets": ATTENTION, "bias": "none"},
        "training": {
            "epochs": 1,
            "max_steps": None,
            "batch": 2,
            "accumulation": 2,
            "learning_rate": 5e-4,
            "scheduler": "constant",
            "warmup": 0.0,
            "weight_decay": 0.0,
            "optimizer": "adamw_torch",
            "precision": "fp32",
            "quantization": "none",
            "checkpointing": True,
            "logging_steps": 1,
            "step_seconds": 600.0,
        },
        "accelerator": {"gpus": int(cuda)},
    }
    for path, value in changes.items():
        *front, last = path.split("__")
        place = values
        for key in front:
            place = place[key]
        if last not in place:
            raise KeyError(path)
        place[last] = value
    return values


def job(values: dict[str, Any], base: Path, folder: Path, checkpoint: Path | None = None) -> handover.Job:
    """The job of one process."""
    told: dict[str, Any] = {
        "parameters": values,
        "base": str(base),
        "batch": values["training"]["batch"],
        "processes": 1,
        "checkpoint": str(checkpoint) if checkpoint else None,
        "deadline": time.monotonic() + 3600,
        "step_seconds": values["training"]["step_seconds"],
        "logs": str(folder / "logs"),
        "continued": None,
        "rows": [],
    }
    known = {each.name for each in dataclasses.fields(handover.Job)}
    return handover.Job(**{name: value for name, value in told.items() if name in known})


def make_examples(
    count: int, lengths: tuple[int, int], words: int, learned: float = 0.7, seed: int = 5
) -> list[Encoded]:
    """Examples of random lengths and few different words, so that there is something to learn; the end is learned."""
    chance = np.random.default_rng(seed)
    made = []
    for length in chance.integers(lengths[0], lengths[1] + 1, count):
        ids = chance.integers(FIRST_WORD, min(words, FIRST_WORD + 200), length).astype(np.int32)
        labels = ids.copy()
        labels[: length - max(1, int(length * learned))] = IGNORED
        made.append(Encoded(ids, labels))
    return made


def apart(one: dict[int, float], other: dict[int, float], after: int = 0) -> float:
    """The largest relative difference of two runs' losses, of the steps behind `after`, which both must have."""
    steps = [step for step in one if step > after]
    if not steps or any(step not in other for step in steps):
        raise RuntimeError(f"steps {sorted(one)} and {sorted(other)} are not the same")
    return max(abs(one[step] - other[step]) / abs(one[step]) for step in steps)


def _drive(folder: Path, wishes: dict[str, Any], seconds: float) -> str:
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder)],
        env=environment(KCHAIN_GPU_CHECK=json.dumps(wishes)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()  # the workers notice that their pipe is closed
        return process.communicate()[0] + f"\nended after {seconds:.0f} s"


def _told(said: str, word: str) -> Any:
    line = next((line for line in said.splitlines() if line.startswith(f"{word}: ")), None)
    return None if line is None else json.loads(line.removeprefix(f"{word}: "))
