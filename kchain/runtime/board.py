"""The loss curve for TensorBoard: one event file, whole even when the run went on from a checkpoint."""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from transformers import TrainerCallback

from .events import emit

SHOWN = ("loss", "learning_rate", "grad_norm", "epoch")


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
