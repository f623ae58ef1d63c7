"""The benchmark of two processes runs as printed in the docs, and both sides learn the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "two_processes.py"


@pytest.mark.long
def test_two_processes_learn_what_one_does_and_the_last_line_holds_the_ratios() -> None:
    command = [sys.executable, str(SCRIPT), "--examples", "25", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["same_losses"] is True
    assert result["loss_difference"] <= 1e-5
    assert [len(side["losses"]) for side in result["sides"].values()] == [4, 4]  # two steps an epoch, one not full
    one, two = result["sides"]["1"], result["sides"]["2"]
    assert result["speed_up_ratio"] == pytest.approx(one["seconds"] / two["seconds"])
    assert 1.0 <= result["token_share_ratio"] < 1.5
