"""One session: `python -m kchain.server.runner SESSION_DIR` mounts its sources and executes its notebook.

The server starts it in its own process group and holds the other end of its stdin: a line "cancel" there stops the
session, and the end of that pipe means the server is gone, which ends the session too. Outcome: result.json.

Session folder: job.json, source.ipynb, log.jsonl (one log object per line, written live), __notebook__.ipynb (the
executed notebook), kaggle/{input,working,temp}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psutil

from kchain import files
from kchain.server import trees

JOB, SOURCE, LOG, RESULT, EXECUTED = "job.json", "source.ipynb", "log.jsonl", "result.json", "__notebook__.ipynb"
CANCELLED = "CANCEL_ACKNOWLEDGED"
_START_SECONDS = 300
_NOISE = (
    "[NbConvertApp] Converting notebook __notebook__.ipynb to html\n",
    "[NbConvertApp] Writing 281043 bytes to __results__.html\n",
)
# Marks the processes of a session in their environment, so that none survives it.
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


class LogStream:
    """One of the two streams of the session log; papermill writes to it as the cells print."""

    _lock = threading.Lock()

    def __init__(self, path: Path, name: str, start: float) -> None:
        self._file = path.open("a", encoding="utf-8")
        self._name = name
        self._start = start

    def write(self, data: str) -> int:
        """Append one log object {stream_name, time (seconds since the start), data}."""
        if data:
            line = json.dumps({"stream_name": self._name, "time": round(time.time() - self._start, 6), "data": data})
            with self._lock:
                self._file.write(line + "\n")
                self._file.flush()
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""


class Session:
    """The running session: whoever ends it first, by finishing, time limit, cancel or loss of the server, wins."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.job: dict[str, Any] = json.loads((folder / JOB).read_text(encoding="utf-8"))
        self.start = time.time()
        self.out = LogStream(folder / LOG, "stdout", self.start)
        self.err = LogStream(folder / LOG, "stderr", self.start)
        self._ending = threading.Lock()

    def finish(self, status: str, failure: str = "", reason: str = "") -> None:
        """Kill what the session left behind, record its outcome, and leave this process. Only the first call acts.

        Args:
            status: Kaggle's word for the end.
            failure: Kaggle's failureMessage.
            reason: "limit" when the time limit ended it.
        """
        if not self._ending.acquire(blocking=False):
            threading.Event().wait()  # somebody else is ending this process
        try:
            end_session(self.folder, runner=False)
            if status == "COMPLETE" and self.job["noise"]:
                for line in _NOISE:
                    self.err.write(line)
            result = {"status": status, "failure": failure, "reason": reason, "ended": time.time()}
            files.write(self.folder / RESULT, json.dumps(result))
        finally:
            os._exit(0)  # without a result file the server reports an ERROR

    def watch_server(self) -> None:
        """Wait for the server's word, or its death."""
        for line in sys.stdin:
            if line.strip() == "cancel":
                self.finish(CANCELLED, "Cancelled.")
        self.finish("ERROR", "The server ended while this session ran.")

    def watch_clock(self) -> None:
        """End the session at its time limit."""
        time.sleep(max(0.0, self.start + self.job["limit"] - time.time()))
        self.finish(CANCELLED, f"The time limit of {self.job['limit']:g} s was reached.", "limit")


def mount(session: Session) -> None:
    """Build kaggle/input from the job's mounts, in the layouts it asks for.

    The new layout holds hard links; the old one is a link to the new one where both are wanted.
    """
    inputs = kaggle_root(session.folder) / "input"
    inputs.mkdir(parents=True, exist_ok=True)
    for entry in session.job["mounts"]:
        paths = [inputs / entry[layout] for layout in ("new", "old") if session.job["layout"] in (layout, "both")]
        if paths[0].exists() or not Path(entry["source"]).is_dir():
            continue
        trees.link_tree(Path(entry["source"]), paths[0])
        for other in paths[1:]:
            other.parent.mkdir(parents=True, exist_ok=True)
            if not other.exists():
                other.symlink_to(paths[0], target_is_directory=True)


def execute(session: Session) -> None:
    """Run the notebook in /kaggle/working.

    Raises:
        papermill.PapermillExecutionError: a cell raised.
        ValueError: it is not a notebook, or names no kernel.
    """
    import papermill

    papermill.execute_notebook(
        SOURCE,
        EXECUTED,
        cwd=str(kaggle_root(session.folder) / "working"),
        progress_bar=False,
        start_timeout=_START_SECONDS,
        iopub_timeout=_START_SECONDS,
        stdout_file=session.out,
        stderr_file=session.err,
    )


def prepare_environment(folder: Path) -> None:
    """Make this session's own /kaggle, and keep the settings of whoever started the server out of it."""
    root = kaggle_root(folder)
    for name in ("working", "temp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    os.environ[ROOT_VARIABLE] = str(root)
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    os.environ["JUPYTER_CONFIG_DIR"] = str(folder / "jupyter")
    os.environ["JUPYTER_RUNTIME_DIR"] = str(folder / "jupyter")
    os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"
    # A server that a test started would pass this on, and ipykernel then leaves child processes' output uncaught.
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    os.chdir(folder)  # papermill reads and writes names relative to it: braces in a longer path would be templates


def run(session: Session) -> None:
    """Mount, execute, record the outcome. Does not return."""
    try:
        mount(session)
        execute(session)
    except Exception as error:  # a notebook may fail in any way; the session must end with a word all the same
        failed_cell = type(error).__name__ == "PapermillExecutionError"
        session.err.write(f"{type(error).__name__}: {error}\n" if failed_cell else traceback.format_exc())
        # papermill's own exception knows the cell's exception apart from the traceback.
        kind, value = getattr(error, "ename", None), getattr(error, "evalue", None)
        session.finish("ERROR", f"{kind}: {value}" if kind else str(error).strip() or type(error).__name__)
    session.finish("COMPLETE")


def main() -> None:
    """Run the session in the folder named on the command line."""
    folder = Path(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is the server's to answer
    prepare_environment(folder)
    session = Session(folder)
    threading.Thread(target=session.watch_server, daemon=True).start()
    if session.job["limit"] is not None:
        threading.Thread(target=session.watch_clock, daemon=True).start()
    run(session)


if __name__ == "__main__":
    main()
