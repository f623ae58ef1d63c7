"""`kill -9` of `kchain watch` at any moment of a real chain: started again it goes on, and nothing is pushed twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e_tools import accepted_versions, kchain, make_project, states

from kchain.server import launch

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

KILLS = 5


def test_five_kills_of_watch_leave_exactly_four_versions(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", max_steps=6)
    assert kchain(project, "review").returncode == 0
    chance = random.Random(11)
    moments = [chance.uniform(0.5, 12.0) for _ in range(KILLS)]
    print("seconds until each kill:", [round(moment, 1) for moment in moments])
    for moment in moments:
        watch = subprocess.Popen(
            [sys.executable, "-m", "kchain", "watch"], cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        time.sleep(moment)
        assert watch.poll() is None, watch.communicate()[0]
        os.kill(watch.pid, signal.SIGKILL)
        watch.communicate()
    last = kchain(project, "watch")
    assert last.returncode == 0, last.stdout + last.stderr
    assert accepted_versions(project) == dict.fromkeys(["phase1", "phase2", "phase3", "phase4"], 1)
    assert [row["state"] for row in states(project).values()] == ["done"] * 4
    launch.stop(project / ".kchain" / "local")
