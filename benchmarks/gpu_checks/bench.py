"""What all checks work with: scratch, the card's room, models that are made when they are asked for, processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .shapes import BATCHES

GIB = 2**30
ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
OBSERVER = Path(__file__).parent / "observer"
T4_MEMORY = int(14.56 * GIB)  # what CUDA reports as usable on a 16 GB T4, at the least
LONGEST_PART = 240.0  # seconds of one training, or of one part of the script
GRACE = 30.0  # seconds that what has begun may take when the whole script's time is over


class Skip(Exception):
    """A check, or the rest of it, cannot be made here; the text says why."""


@dataclass
class Bench:
    """Where checks work, and with what.

    Attributes:
        folder: scratch; models need 35 GB of it.
        cuda: whether there is a card; without one, models are tiny.
        lanes: as many trainings at a time as the card has room for, a T4's memory each.
        ends: time.monotonic() from which nothing more is begun.
    """

    folder: Path
    cuda: bool
    lanes: threading.Semaphore
    ends: float
    models: dict[str, Future[Path]] = field(default_factory=dict)
    runs: dict[str, Future[Any]] = field(default_factory=dict)  # that several checks look at
    turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def precision(self) -> str:
        """The arithmetic of most checks: a T4's, or a CPU's."""
        return "fp16" if self.cuda else "fp32"

    def model(self, name: str) -> Path:
        """The folder of a model, when it is made: its batch is begun when the first of it is asked for."""
        number, names = next((number, names) for number, names in enumerate(BATCHES) if name in names)
        with self.turn:
            if name not in self.models:
                self.models |= {each: Future() for each in names}
                threading.Thread(target=_make, args=(self, number, names), daemon=True).start()
        return self.models[name].result(timeout=self.left(LONGEST_PART))

    def left(self, most: float) -> float:
        """Seconds that something may take which begins now.

        Raises:
            Skip: the time is over.
        """
        left = self.ends - time.monotonic()
        if left <= 0:
            raise Skip("the time of the whole script was over")
        return min(most, left + GRACE)

    def need_cuda(self, what: str) -> None:
        """Ends a check that shows nothing without a card."""
        if not self.cuda:
            raise Skip(f"{what} needs a CUDA card")

    def once(self, name: str, call: Callable[[], Any]) -> Any:
        """What the first call of this name gave, or gives; who comes later waits for it."""
        with self.turn:
            first = name not in self.runs
            future = self.runs.setdefault(name, Future())
        if first:
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)
        return future.result()

    def together(self, *calls: Callable[[], Any]) -> list[Any]:
        """What the calls return; they wait for each other's lanes only."""
        with ThreadPoolExecutor(len(calls)) as pool:
            return [future.result() for future in [pool.submit(call) for call in calls]]


def environment(**more: str) -> dict[str, str]:
    """For processes of this script: kchain on the path, and the observer before any other such module."""
    path = os.pathsep.join([str(OBSERVER), str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])])
    # As kchain's launcher sets it for its workers.
    memory = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    return {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", **memory, **more}


def part(bench: Bench, name: str, *words: str, seconds: float = LONGEST_PART) -> dict[str, Any]:
    """What a part of this script says on its last line; it runs in a process of its own, whose memory is its own."""
    command = [sys.executable, str(SCRIPT), "--part", name, str(bench.folder), *words]
    left = bench.left(seconds)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=left)
    if done.returncode:
        raise RuntimeError(f"{name} failed: " + "\n".join(done.stderr.strip().splitlines()[-8:]))
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return said


def _make(bench: Bench, number: int, names: tuple[str, ...]) -> None:
    words = [str(bench.folder), str(number), "real" if bench.cuda else "tiny"]
    command = [sys.executable, str(SCRIPT), "--part", "make", *words]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    for line in process.stdout or ():
        said.append(line)
        if line.startswith("made "):
            name = line.split()[1]
            bench.models[name].set_result(bench.folder / "models" / name)
    process.wait()
    for name in names:
        if not bench.models[name].done():
            bench.models[name].set_exception(RuntimeError(f"model {name} was not made: {''.join(said)[-800:]}"))
