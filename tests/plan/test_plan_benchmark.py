"""benchmarks/plan.py: what it prints, and that the plan is as near to the published figures as docs/ says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def printed() -> list[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "plan.py"), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def summary(printed: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed[-1])
    return found


def test_the_load_is_within_the_bounds_of_published_loads(summary: dict[str, Any]) -> None:
    assert -0.8 <= summary["load_lowest_gib"] <= summary["load_highest_gib"] <= 0.3


def test_the_plan_is_as_near_as_it_was(summary: dict[str, Any]) -> None:
    assert summary["median"] < 0.08
    assert summary["worst"] < 0.22


def test_no_lower_bound_that_counts_is_broken(printed: list[str]) -> None:
    bounds = [line for line in printed if "| at least |" in line]
    assert len(bounds) == 2
    assert all("+0%" in line for line in bounds)


def test_every_figure_stands_in_the_table(printed: list[str], summary: dict[str, Any]) -> None:
    text = "\n".join(line for line in printed if line.startswith("| "))
    assert len(re.findall(r"[+-]\d+%", text)) == summary["figures"]
    assert "\n".join(printed).count("(plan ") == summary["apart"]
    assert summary["figures"] + summary["apart"] == 57


def test_the_page_shows_what_the_benchmark_prints_now(printed: list[str]) -> None:
    page = (ROOT / "docs" / "memory-plan.md").read_text(encoding="utf-8")
    assert "\n".join(printed[:-1]) in page, "docs/memory-plan.md is out of date: paste `python benchmarks/plan.py`"
