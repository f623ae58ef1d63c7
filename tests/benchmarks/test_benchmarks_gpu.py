"""`make gpu` runs to its end without a card, and says what it could not show there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(folder: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """The script on tiny models, and its JSON."""
    told = folder / "gpu.json"
    command = [sys.executable, str(SCRIPT), "--tiny", "--folder", str(folder), "--json", str(told), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=580)
    return done, json.loads(told.read_text()) if told.is_file() else {}


@pytest.mark.long
def test_what_needs_a_card_is_skipped_with_the_reason_and_nothing_is_left_behind(tmp_path: Path) -> None:
    done, told = run(tmp_path, "--checks", "8", "9", "4")
    assert done.returncode == 0, done.stderr[-3000:]
    checks = told["checks"]
    assert {number: check["verdict"] for number, check in checks.items()} == {"4": "SKIP", "8": "PASS", "9": "SKIP"}
    assert "needs a CUDA card" in checks["4"]["skipped"][0]
    assert "skipped: paged memory needs a CUDA card" in done.stdout
    for sides in checks["8"]["figures"].values():
        assert 0 < sides["kchain"]["error"] <= sides["stock"]["error"] < 1e-5
    assert told["about"]["versions"]["torch"]
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


def test_when_the_time_is_over_the_rest_is_skipped(tmp_path: Path) -> None:
    done, told = run(tmp_path, "--checks", "8", "11", "--seconds", "0")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [check["verdict"] for check in told["checks"].values()] == ["SKIP", "SKIP"]
    assert "time of the whole script was over" in told["checks"]["11"]["skipped"][0]


@pytest.mark.long
@pytest.mark.parametrize("checks", ["1 7", "2 3 10 11 12"])
def test_all_that_a_cpu_can_show_holds(tmp_path: Path, checks: str) -> None:
    done, told = run(tmp_path, "--seconds", "540", "--checks", *checks.split())
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert {number: check["verdict"] for number, check in told["checks"].items()} == dict.fromkeys(
        checks.split(), "PASS"
    )
    assert all(check["figures"] and check["held"] for check in told["checks"].values())
