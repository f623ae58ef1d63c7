"""A server that is held ends with whoever holds it, its sessions with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from server_tools import until

from kchain.server import launch

HOLD = """
import sys, time
from pathlib import Path
from kchain.server import launch
with launch.held(Path(sys.argv[1]), "machine", {"SEEN": "yes"}) as endpoint:
    print(endpoint.pid, flush=True)
    time.sleep(600)
"""


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"


def holder(root: Path) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_it_ends_with_the_context(tmp_path: Path) -> None:
    with launch.held(tmp_path, "like-kaggle", {}) as endpoint:
        assert launch.find(tmp_path) == endpoint
    assert launch.find(tmp_path) is None
    until("the end of its process", lambda: not is_alive(endpoint.pid))


def test_it_ends_when_its_holder_is_killed(tmp_path: Path) -> None:
    process, pid = holder(tmp_path)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    until("the end of the server", lambda: not is_alive(pid))
    assert launch.find(tmp_path) is None


def test_it_gets_the_variables_it_is_given(tmp_path: Path) -> None:
    process, pid = holder(tmp_path)
    try:
        assert b"SEEN=yes" in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    finally:
        process.kill()
        process.communicate()


def test_one_that_runs_there_already_is_replaced(tmp_path: Path) -> None:
    before = launch.ensure_running(tmp_path, idle_seconds=600)
    with launch.held(tmp_path, "machine", {}) as endpoint:
        assert endpoint.pid != before.pid and not is_alive(before.pid)
