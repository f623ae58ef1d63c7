"""Starts the processes that train, passes on what they print, and says in words why they ended.

Training has processes of its own: they use every GPU, a hang or the system's memory killer ends them and not the
notebook, and when they end all memory of the GPUs is free again.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from . import checkpoint, handover
from .failure import OUT_OF_MEMORY, Stop, emit
from .handover import Failure, Job, Outcome

ENDING_SECONDS = 20.0  # that a launcher has to end its processes
KILLED = re.compile(r"exitcode\s*:\s*-9\b")  # in the words of torch's launcher
HOST_MEMORY = (
    "the machine's own memory is full, most likely: lower data.max_examples, close what else runs there, or take a "
    "smaller base model"
)


@dataclass(frozen=True)
class Trained:
    """What a training came to, and with which job: what the first one asked for, or less.

    Attributes:
        recovered: one entry for each time that memory ran out and a smaller batch went on.
    """

    outcome: Outcome
    job: Job
    recovered: list[dict[str, Any]]


def train(folder: Path, job: Job, about: Callable[[int], str]) -> Trained:
    """Trains in processes of their own until they are done; where memory runs out, again with about half the batch.

    Args:
        folder: where the examples are (handover), and where everything is left.
        about: what an example is about, in a few words, for a failure.

    Raises:
        Stop: training failed, with the reason of the process that failed.
    """
    recovered: list[dict[str, Any]] = []
    while True:
        handover.clear(folder)
        handover.write_job(folder, job)
        status = _run(folder, job.processes)
        failure = handover.read_failure(folder)
        if status == 0:
            outcome = Outcome(**json.loads((folder / handover.OUTCOME).read_text(encoding="utf-8")))
            return Trained(outcome, job, recovered)
        if failure is None or failure.step is None:
            raise _reason(folder, status, failure, about)
        job, event = _after_running_out(folder, job, failure)
        recovered.append(event)


def _after_running_out(folder: Path, job: Job, failure: Failure) -> tuple[Job, dict[str, Any]]:
    """The job with a smaller batch, from where it can go on, and the event that tells it."""
    from .batches import Share, smaller  # needs torch, which is not installed yet when this module is imported

    training = job.parameters["training"]
    had = Share(training["batch"] * training["accumulation"], job.batch, job.processes)
    share = smaller(had)
    if share is None:
        raise Stop(f"one example at a time does not fit: {failure.reason}", OUT_OF_MEMORY)
    saved = checkpoint.latest(folder, job.processes)
    resumed = replace(job, batch=share.batch, checkpoint=str(saved) if saved else job.checkpoint)
    event = {
        "step": failure.step,
        "batch": share.batch,
        "accumulation": share.accumulation * share.processes,
        "before": had.batch,
        "again_from": checkpoint.step_of(resumed.checkpoint),
        "reason": failure.reason,
    }
    emit("oom", **event)
    return resumed, {"event": "oom", **event}


def _run(folder: Path, processes: int) -> int:
    """Runs the processes and prints what they print; their status. However this ends, they end too."""
    package = __package__ or ""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", f"{package}.worker", str(folder)]
    root = Path(__file__).resolve().parents[len(package.split("."))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.getenv("PYTHONPATH")])])}
    # Rows of ever other lengths leave holes between blocks of fixed sizes; memory that can grow has none.
    environment.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    if processes > 1:
        environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    with (folder / handover.LAUNCHER).open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,  # closed when this process ends, whatever ends it
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl-C in the notebook is the notebook's to answer
        )
    try:
        for line in process.stdout or ():
            print(line, end="", flush=True)
        return process.wait()
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    """Ends a launcher and its processes, which notice that the pipe is closed."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _reason(folder: Path, status: int, failure: Failure | None, about: Callable[[int], str]) -> Stop:
    """Why the processes ended, the cause before its consequences."""
    for path in sorted(folder.glob("hang-*.txt")):
        if path.stat().st_size:
            print(path.read_text(encoding="utf-8", errors="replace"), file=sys.stderr, flush=True)
            return Stop(
                "the training hung: a step, or loading the model, did not end; the log shows where",
                "push again; if it hangs there again, that line of the log tells what to look at",
            )
    said = (folder / handover.LAUNCHER).read_text(encoding="utf-8", errors="replace")
    if not (failure and failure.told) and (status in (-9, 137) or KILLED.search(said)):
        return Stop("the training was killed by the system (SIGKILL): out of host memory", HOST_MEMORY)
    if failure is None:
        print(said, file=sys.stderr, flush=True)
        return Stop(f"the training ended with status {status} and gave no reason", "read the log above")
    shown = "; ".join(about(index) for index in failure.examples[:3])
    return Stop(f"{failure.reason}: {shown}" if shown else failure.reason, failure.cure)
