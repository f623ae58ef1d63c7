"""The training benchmark runs as printed in the docs, and both of its sides learn the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "train_step.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)


@pytest.mark.long
def test_both_sides_learn_the_same_and_the_last_line_holds_the_ratios() -> None:
    done = run("--cases", "answers", "--examples", "17", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    *table, last = done.stdout.splitlines()
    (result,) = json.loads(last).values()
    assert result["same_losses"] is True
    assert result["loss_difference"] <= 1e-5
    padded, ours = result["sides"]["padded"], result["sides"]["kchain"]
    assert padded["tokens"] == ours["tokens"] > 17 * 8
    assert len(padded["losses"]) == len(ours["losses"]) == 2
    assert result["tokens_per_second_ratio"] == pytest.approx(ours["tokens_per_second"] / padded["tokens_per_second"])
    assert result["training_memory_ratio"] < 0.5, "logits that are never made are not in memory"
    assert any(line.startswith("ratio") and "losses differ by" in line for line in table)


def test_a_case_that_does_not_exist_is_refused_with_those_that_do() -> None:
    done = run("--cases", "everything")
    assert done.returncode == 2
    assert "invalid choice: 'everything'" in done.stderr
    assert all(name in done.stderr for name in ("head", "body", "answers"))
