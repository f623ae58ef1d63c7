"""The processes of a session: found by a mark in their environment, so that none survives its session.

A notebook's kernel has a process group of its own and may start further ones (torchrun, daemons); parent ids and groups
lose such processes, but every one of them inherits KCHAIN_KAGGLE_ROOT, whose value only this session has.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

ROOT_VARIABLE = "KCHAIN_KAGGLE_ROOT"
RUNNER = "kchain.server.runner"
_PATIENCE_SECONDS = 10.0


def kaggle_root(session: Path) -> Path:
    """What a notebook in this session knows as /kaggle."""
    return session / "kaggle"


def of_session(session: Path, runner: bool) -> list[psutil.Process]:
    """The living processes of a session.

    Args:
        session: the session's folder, absolute.
        runner: whether to count its runner too.
    """
    mark, found = str(kaggle_root(session)), []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            words = process.cmdline()
            is_runner = RUNNER in words and str(session) in words
            if (runner and is_runner) or (not is_runner and process.environ().get(ROOT_VARIABLE) == mark):
                found.append(process)
        except (psutil.Error, OSError):  # gone meanwhile, or somebody else's
            continue
    return found


def end_session(session: Path, runner: bool = True) -> None:
    """Kill a session's processes until none is left; those that a dying one started included."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while (left := of_session(session, runner)) and time.monotonic() < deadline:
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, timeout=0.5)
