"""One driver at a time, and no lock that survives its owner."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kchain.errors import DriverLocked
from kchain.orchestrator.journal.lock import LOCK, driver_lock, note_of

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom kchain.orchestrator.journal.lock import driver_lock\n"
    "with driver_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


def holder(root: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_driver_is_told_who_the_first_one_is(tmp_path: Path) -> None:
    first = holder(tmp_path)
    try:
        with pytest.raises(DriverLocked) as told, driver_lock(tmp_path):
            pass
        assert f"process {first.pid} on {socket.gethostname()} since 20" in told.value.message
        assert told.value.exit_code == 3
    finally:
        first.kill()
        first.wait()


def test_a_killed_driver_leaves_no_lock_behind(tmp_path: Path) -> None:
    first = holder(tmp_path)
    first.send_signal(signal.SIGKILL)
    first.wait()
    with driver_lock(tmp_path):
        assert str(os.getpid()) in note_of(tmp_path / LOCK).read_text(encoding="utf-8")


def test_a_driver_that_fails_gives_the_lock_back(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), driver_lock(tmp_path):
        raise RuntimeError
    with driver_lock(tmp_path):
        pass


def test_an_unreadable_note_does_not_hide_that_it_is_locked(tmp_path: Path) -> None:
    with driver_lock(tmp_path):
        note_of(tmp_path / LOCK).write_text("?", encoding="utf-8")
        with pytest.raises(DriverLocked, match="only just started"), driver_lock(tmp_path):
            pass


def test_two_projects_do_not_lock_each_other(tmp_path: Path) -> None:
    with driver_lock(tmp_path / "a"), driver_lock(tmp_path / "b"):
        assert (tmp_path / "a" / LOCK).is_file()
        assert (tmp_path / "b" / LOCK).is_file()
