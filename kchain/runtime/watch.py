"""What watches a training: tells how it goes, draws its curve, saves what would be lost, ends it in time."""

from __future__ import annotations

import faulthandler
import math
import shutil
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import torch
from transformers import TrainerCallback

from .contract import SLOW, Stopped
from .failure import Stop, emit, peak_memory
from .handover import Job, hang_file

# Steps that a run is not judged by, and those that it takes to call it slow.
WARM_UP_STEPS = 3
JUDGED_STEPS = 8
# A step that takes longer than this many planned steps (and ten minutes) hangs: the process is ended.
HANGING = 50
HANGING_SECONDS = 600.0
# Seconds between two checkpoints on scratch. One is saved after each epoch too, but saving takes at most this share.
SAVING_SECONDS = 600.0
SAVING_SHARE = 0.05
# What the first process decides after a step, and all others do too.
GO, SAVE, TIME, SLOW_DOWN = range(4)
STOPPED: dict[int, Stopped] = {TIME: "time", SLOW_DOWN: "slow"}
# Figures of a step that TensorBoard shows.
SHOWN = ("loss", "learning_rate", "grad_norm", "epoch")


def mind_hanging(folder: Path, rank: int, seconds: float) -> None:
    """Ends this process unless it is called again, or `faulthandler.cancel_dump_traceback_later`, within the time.

    A thread of the interpreter itself does it: it works while everything else is stuck in a GPU call.
    """
    # Kept open on purpose: the thread writes to it when nothing else can.
    file = _hang_files.setdefault(rank, hang_file(folder, rank).open("w"))
    faulthandler.dump_traceback_later(seconds, exit=True, file=file)


_hang_files: dict[int, Any] = {}


def step_limit(step_seconds: float) -> float:
    """Seconds after which a step hangs."""
    return max(HANGING_SECONDS, HANGING * step_seconds)


class Watch(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Looks at every step.

    Args:
        job: what is trained.
        folder: of the job.
        rank: of this process; the first one decides, and prints.
        epoch_steps: optimizer steps of an epoch.
        blame: gives the examples of the step whose losses are not finite, and whether all of them are.
    """

    def __init__(
        self, job: Job, folder: Path, rank: int, epoch_steps: int, blame: Callable[[int], tuple[list[int], bool]]
    ) -> None:
        self.job = job
        self.folder = folder
        self.rank = rank
        self.epoch_steps = epoch_steps
        self.blame = blame
        self.seconds: list[float] = []
        self.printed: int | None = None  # losses of the log that are told
        self.saving = 0.0  # seconds that the last checkpoint took
        self.stopped: Stopped | None = None
        self.reason: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clocks."""
        self.began = self.last = self.saved = time.monotonic()
        self.printed = len(losses(state))
        self._expect_a_step()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after every optimizer step (and once at the end, without a loss), in every process."""
        logs = kwargs["logs"]
        if "loss" not in logs:
            return
        step = state.global_step
        if not math.isfinite(logs["loss"]):
            raise self._diverged(step, logs["loss"])
        now = time.monotonic()
        self.seconds.append(now - self.last)
        self.last = now
        self._expect_a_step()
        verdict = self._agree(self._verdict(now, step, state.max_steps), args.device)
        self.stopped = STOPPED.get(verdict)
        control.should_training_stop = control.should_training_stop or self.stopped is not None
        control.should_save = verdict != GO
        every = self.job.parameters["training"]["logging_steps"]
        if self.rank == 0 and (step == 1 or step % every == 0 or step == state.max_steps or self.stopped):
            self._print(state, logs["learning_rate"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called when a checkpoint is written; it is not part of the step after it."""
        now = time.monotonic()
        self.saving, self.last, self.saved = now - self.last, now, now
        self._expect_a_step()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stops waiting for steps."""
        faulthandler.cancel_dump_traceback_later()

    def _expect_a_step(self) -> None:
        mind_hanging(self.folder, self.rank, step_limit(self.job.step_seconds))

    def _verdict(self, now: float, step: int, most_steps: int) -> int:
        """What this process would do after a step; nothing after the last one."""
        if step >= most_steps:
            return GO
        judged, planned = self.seconds[WARM_UP_STEPS:], self.job.step_seconds
        if len(judged) >= JUDGED_STEPS and fmean(judged) > SLOW * planned:
            self.reason = f"a step takes {fmean(judged):.3g} s where {planned:g} s were planned"
            return SLOW_DOWN
        if now + fmean(self.seconds) + self.saving > self.job.deadline:
            self.reason = "the session's time is nearly over; the rest of it is for judging and saving"
            return TIME
        since = now - self.saved
        if since > SAVING_SECONDS or (step % self.epoch_steps == 0 and since * SAVING_SHARE > self.saving):
            return SAVE
        return GO

    def _agree(self, verdict: int, device: torch.device) -> int:
        """The first process's verdict: clocks differ, and who stops alone leaves the others waiting for ever."""
        if self.job.processes == 1:
            return verdict
        shared = torch.tensor(verdict, device=device)
        torch.distributed.broadcast(shared, 0)
        return int(shared.item())

    def _diverged(self, step: int, loss: float) -> Stop:
        examples, all_of_them = self.blame(step - 1)
        if all_of_them:
            where, cause = "in every batch", "the weights are not finite any more: "
        else:
            where, cause = f"in {len(examples)} of its examples", "these examples are unlike the others: "
        cure = "lower training.learning_rate, add training.warmup, and look at the data of the last examples"
        return Stop(f"the loss is {loss} at step {step}, {where}", cause + cure, examples)

    def _print(self, state: Any, learning_rate: float) -> None:
        told = losses(state)
        window = told[self.printed :]
        self.printed = len(told)
        emit(
            "step",
            step=state.global_step,
            steps=state.max_steps,
            epoch=round(state.epoch, 4),
            loss=fmean(window),
            learning_rate=learning_rate,
            seconds=round(self.last - self.began, 3),
            memory_bytes=peak_memory(),
        )


def losses(state: Any) -> list[float]:
    """The loss of every step so far, those of earlier sessions too."""
    return [line["loss"] for line in state.log_history if "loss" in line]


class Board(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Writes the figures of every step into a folder, under the number of the step.

    What an earlier start or session trained is written first, from the Trainer's own history: a checkpoint needs no
    event files, and steps that were trained twice stand there once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begins the file anew."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.writer = _writer(self.folder)
        for line in state.log_history:
            self._write(line, line["step"])

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after every step."""
        self._write(kwargs["logs"], state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Writes what is still in memory."""
        if self.writer is not None:
            self.writer.close()

    def _write(self, line: dict[str, Any], step: int) -> None:
        if self.writer is not None and "loss" in line:
            for name in SHOWN:
                if name in line:
                    self.writer.add_scalar(f"train/{name}", line[name], step)


def _writer(folder: Path) -> Any:
    """tensorboardX where it is installed, else torch's writer over tensorboard, which Kaggle's image has."""
    if find_spec("tensorboardX"):
        from tensorboardX import SummaryWriter
    elif find_spec("tensorboard"):
        # Its own word for "without TensorFlow", which takes half a minute to import and is not needed to write a file.
        sys.modules.setdefault("tensorboard.compat.notf", ModuleType("notf"))
        from torch.utils.tensorboard import SummaryWriter
    else:
        emit("warning", message="neither tensorboardX nor tensorboard is installed: no curves in logs/")
        return None
    return SummaryWriter(str(folder))
