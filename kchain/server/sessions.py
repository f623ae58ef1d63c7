"""The session queue: who runs when, on which devices, and how each session ends.

Sessions are rows of the database, so the queue survives the server; each running one has a runner process (runner.py)
and a thread here that waits for it.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from kchain import files
from kchain.server import runner, trees
from kchain.server.db import IS_LIVE, Database, Row
from kchain.server.profile import Profile

GONE = "The server ended while this session ran."
_IDLE_SECONDS = 3600.0
_RETRY_SECONDS = 1.0
_log = logging.getLogger("kchain.server")


class Sessions:
    """Starts queued sessions in order, as the profile and the devices allow."""

    def __init__(self, db: Database, root: Path, profile: Profile) -> None:
        self._db = db
        self._root = root.resolve()
        self._profile = profile
        self._changed = threading.Condition()
        self._stopping = False
        self._processes: dict[int, subprocess.Popen[str]] = {}
        self._gpus: dict[int, list[str]] = {}
        self._waiters: dict[int, threading.Thread] = {}
        self._thread = threading.Thread(target=self._schedule, name="sessions", daemon=True)

    def folder(self, session: int) -> Path:
        """Where a session keeps its files."""
        return self._root / "sessions" / str(session)

    def start(self) -> None:
        """End what an earlier server left running, then begin to work through the queue."""
        for row in self._db.all("SELECT * FROM sessions WHERE status IN ('RUNNING', 'CANCEL_REQUESTED')"):
            runner.end_session(self.folder(row["id"]))
            self._record_end(row["id"])
        self._thread.start()

    def stop(self) -> None:
        """End every running session, as ERROR; queued ones wait for the next server."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()
        for session in list(self._processes):
            runner.end_session(self.folder(session))
        for waiter in list(self._waiters.values()):
            waiter.join()

    def wake(self) -> None:
        """Look at the queue again: something was pushed, or a session ended."""
        with self._changed:
            self._changed.notify_all()

    def busy(self) -> bool:
        """Whether anything is queued or running."""
        active = self._db.one(f"SELECT 1 FROM sessions WHERE {IS_LIVE}")
        return active is not None

    def cancel(self, session: int) -> None:
        """End a session as CANCEL_ACKNOWLEDGED: a queued one now, a running one as soon as its runner hears of it."""
        with self._db.write() as db:
            now = time.time()
            db.execute(
                "UPDATE sessions SET status = 'CANCEL_ACKNOWLEDGED', ended = ? WHERE id = ? AND status = 'QUEUED'",
                (now, session),
            )
            db.execute(
                "UPDATE sessions SET status = 'CANCEL_REQUESTED' WHERE id = ? AND status = 'RUNNING'", (session,)
            )
        self._pass_on_cancel(session)

    def _pass_on_cancel(self, session: int) -> None:
        process = self._processes.get(session)
        asked = self._db.one("SELECT 1 FROM sessions WHERE id = ? AND status = 'CANCEL_REQUESTED'", session)
        if asked is None or process is None or process.stdin is None:
            return
        try:
            process.stdin.write("cancel\n")
            process.stdin.flush()
        except (BrokenPipeError, ValueError):
            _log.info("session %d ended before it could be cancelled", session)

    def _schedule(self) -> None:
        with self._changed:
            while not self._stopping:
                try:
                    wait = self._start_ready()
                except (OSError, sqlite3.Error):
                    _log.exception("the queue could not be read; trying again")
                    wait = _RETRY_SECONDS
                self._changed.wait(wait)

    def _start_ready(self) -> float:
        """Start whatever may start; seconds until the next look."""
        wait, full = _IDLE_SECONDS, set()
        for row in self._db.all("SELECT * FROM sessions WHERE status = 'QUEUED' ORDER BY id"):
            left = row["queued"] + self._profile.queue_seconds - time.time()
            if left > 0:
                wait = min(wait, left)
            elif row["device"] not in full and (gpus := self._free_devices(row)) is not None:
                self._start(row, gpus)
            else:
                full.add(row["device"])  # first come, first served: nobody overtakes within a kind of device
        return wait

    def _free_devices(self, row: Row) -> list[str] | None:
        """The GPUs a session gets; None while it must wait."""
        if row["device"] == "cpu":
            running = sum(not gpus for gpus in self._gpus.values())
            slots = self._profile.cpu_slots
            return [] if slots is None or running < slots else None
        if self._profile.gpus is None:
            return []
        taken = {gpu for gpus in self._gpus.values() for gpu in gpus}
        given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        names = given[: self._profile.gpus] or [str(index) for index in range(self._profile.gpus)]
        free = [gpu for gpu in names if gpu not in taken]
        wanted = min(row["gpus"], self._profile.gpus)
        return free[:wanted] if len(free) >= wanted else None

    def _start(self, row: Row, gpus: list[str]) -> None:
        session, folder = row["id"], self.folder(row["id"])
        with self._db.write() as db:
            started = db.execute(
                "UPDATE sessions SET status = 'RUNNING', started = ? WHERE id = ? AND status = 'QUEUED'",
                (time.time(), session),
            )
        if started.rowcount != 1:
            return
        self._gpus[session] = gpus
        try:
            version = self._db.one("SELECT * FROM versions WHERE id = ?", row["version"])
            if version is None:
                raise FileNotFoundError("its kernel was deleted")
            _prepare(folder, row, version, self._profile)
            visible = "" if row["device"] == "cpu" else ",".join(gpus) if self._profile.gpus is not None else None
            process = _spawn(folder, visible)
        except OSError as error:
            _log.exception("session %d could not be started", session)
            self._gpus.pop(session)
            self._record_end(session, f"The session could not be started: {error}")
            return
        self._processes[session] = process
        self._waiters[session] = threading.Thread(target=self._wait, args=(session, process), daemon=True)
        self._waiters[session].start()
        self._pass_on_cancel(session)  # one may have come while it was being started

    def _wait(self, session: int, process: subprocess.Popen[str]) -> None:
        code = process.wait()
        runner.end_session(self.folder(session))
        stopped = self._stopping and not (self.folder(session) / runner.RESULT).exists()
        try:
            self._record_end(session, GONE if stopped else f"The session ended unexpectedly (exit status {code}).")
        except (OSError, sqlite3.Error):  # a full disk: the next server records it; its devices are free all the same
            _log.exception("the end of session %d could not be recorded", session)
        with self._changed:
            self._processes.pop(session)
            self._gpus.pop(session)
            self._waiters.pop(session)
            self._changed.notify_all()

    def _record_end(self, session: int, otherwise: str = GONE) -> None:
        """Write a session's outcome from its result file; without one it is an ERROR with the reason `otherwise`."""
        folder = self.folder(session)
        result: dict[str, Any] = {"status": "ERROR", "failure": otherwise, "reason": "", "ended": time.time()}
        if (folder / runner.RESULT).exists():
            result = json.loads((folder / runner.RESULT).read_text(encoding="utf-8"))
        root = runner.kaggle_root(folder)
        for scratch in (root / "input", root / "temp"):
            trees.remove_tree(scratch)
        if (root / "working").is_dir():
            trees.protect(root / "working")
        with self._db.write() as db:
            db.execute(
                "UPDATE sessions SET status = ?, failure = ?, ended = ?,"
                " keeps_outputs = CASE WHEN ? THEN keeps_outputs ELSE 1 END WHERE id = ?",
                (result["status"], result["failure"], result["ended"], result["reason"] == "limit", session),
            )
        if self._db.one("SELECT 1 FROM sessions WHERE id = ? AND version IS NULL", session) is not None:
            trees.remove_tree(folder)  # its kernel was deleted while it ran


def _prepare(folder: Path, row: Row, version: Row, profile: Profile) -> None:
    """Write what the runner reads: the notebook and job.json (limit in seconds, mounts, layout)."""
    settings = json.loads(version["settings"])
    files.write(folder / runner.SOURCE, _as_notebook(version["source"], settings["kernelType"]))
    job = {
        "limit": row["time_limit"],
        "mounts": settings["mounts"],
        "layout": profile.mounts,
        "noise": profile.export_noise,
    }
    files.write(folder / runner.JOB, json.dumps(job))


def _as_notebook(source: str, kernel_type: str) -> str:
    """The notebook to execute; a script is one of a single cell."""
    if kernel_type == "notebook":
        return source
    cell: dict[str, Any] = {
        "cell_type": "code",
        "id": "script",
        "metadata": {},
        "execution_count": None,
        "outputs": [],
        "source": source,
    }
    kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernelspec}, "cells": [cell]})


def _spawn(folder: Path, visible: str | None) -> subprocess.Popen[str]:
    """Start the runner in its own session and process group, without the credentials of whoever started the server.

    Args:
        visible: CUDA_VISIBLE_DEVICES; None leaves the server's own.
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KAGGLE_")}
    environment.pop(runner.ROOT_VARIABLE, None)
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    with (folder / "runner.log").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", runner.RUNNER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=environment,
            text=True,
            start_new_session=True,
        )
