"""What every session has: its clock, its result file, and stages that tell why they fail."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from .adapters import Adapter
from .contract import ENDED, RESULT, SessionResult
from .failure import Stop, emit, explain, peak_memory
from .files import write_json
from .paths import Paths

# Progress bars fill a notebook's log with thousands of lines.
QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class Stages:
    """A session's result file tells the truth from its first second on, even if the machine dies.

    Args:
        parameters: the notebook's PARAMETERS.
        result: what the result file holds so far.
    """

    def __init__(self, parameters: dict[str, Any], paths: Paths, result: SessionResult) -> None:
        os.environ.update(QUIET)
        self.began = time.monotonic()
        self.parameters = parameters
        self.paths = paths
        self.result = result
        self.memory = 0  # bytes, the most that other processes of this session held
        self._write_result()

    def install(self) -> None:
        """Installs the packages of the environment."""
        with self._stage("install"):
            environment = self.parameters["environment"]
            prepare(environment["install"], environment["uninstall"])

    def _record_inputs(self, adapters: Sequence[Adapter], base_bytes: int) -> None:
        """Tells, and puts into the result, which adapters were found and what travelled."""
        inputs = [{"phase": each.phase, "path": str(each.folder), "sha256": each.sha256} for each in adapters]
        emit("inputs", adapters=inputs)
        self.result.lineage = [adapter.entry() for adapter in adapters]
        moved = sum(adapter.bytes for adapter in adapters)
        self.result.moved = {"adapter_bytes_in": moved, "base_bytes": base_bytes}

    def _seconds(self) -> float:
        return round(time.monotonic() - self.began, 1)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Announces a stage; if it fails, says why and what to do, records it, and lets the notebook fail."""
        emit("stage", stage=name, seconds_since_start=self._seconds())
        # What stands in the file if the process is killed now: for memory, for time, or because a step hung.
        self.result.reason = f"{ENDED} {name}: out of memory, out of time, or hung"
        self._write_result()
        try:
            yield
        except BaseException as error:
            reason, cure = explain(error)
            emit("failed", stage=name, reason=reason, cure=cure)
            self.result.status, self.result.reason = "failed", f"{name}: {reason}"
            self._write_result()
            raise

    def _write_result(self) -> None:
        self.result.seconds, self.result.peak_memory_bytes = self._seconds(), max(self.memory, peak_memory())
        write_json(self.paths.working / RESULT, asdict(self.result))


def prepare(install: Sequence[str], uninstall: Sequence[str]) -> None:
    """Removes, then adds packages with pip; does nothing for empty lists.

    Raises:
        Stop: pip failed; its own words stand above in the log.
    """
    if uninstall:
        _pip("uninstall", "--yes", *uninstall)
    if install:
        _pip("install", "--no-input", *install)
    importlib.invalidate_caches()


def _pip(*words: str) -> None:
    # `!pip` in a cell would not stop the notebook when it fails; check=True does.
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words]
    try:
        subprocess.run(command, check=True)
    except subprocess.CalledProcessError as error:
        raise Stop(
            f"pip {' '.join(words)} failed with status {error.returncode}",
            "turn internet on for this phase, or pin a version that the image's Python has",
        ) from error
