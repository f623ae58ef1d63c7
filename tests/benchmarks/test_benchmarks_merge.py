"""The merge benchmark runs as printed in the docs, and its sides give the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "merge.py"


@pytest.mark.long
def test_the_streamed_merge_equals_pefts_bit_for_bit_and_takes_a_fraction_of_its_memory(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--small", "--rounds", "1", "--folder", str(tmp_path), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    *table, last = done.stdout.splitlines()
    found = json.loads(last)
    assert set(found) == {"fp16", "bf16"}
    for result in found.values():
        assert result["equal"] is True
        assert result["fp16_differs"] > 0, "rounding after every adapter must show, or the comparison is blind"
        assert result["memory_over_peft"] < 0.5
        ours, copying = result["sides"]["kchain"], result["sides"]["copy"]
        assert result["time_over_copy"] == pytest.approx(ours["seconds"] / copying["seconds"])
    assert sum("bit for bit" in line for line in table) == 2
    assert list(tmp_path.iterdir()) == [], "gigabytes are not left behind"
