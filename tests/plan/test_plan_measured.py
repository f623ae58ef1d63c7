"""The plan against a real step of the notebook's own parts, by torch's allocator; small steps, for every run."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("peft")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "plan_measured.py"
    spec = importlib.util.spec_from_file_location("plan_measured", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "vocab, rows, checkpointing",
    [(2000, 0, False), *(pytest.param(*each, True, marks=pytest.mark.long) for each in ((2000, 0), (60_000, 2)))],
    ids=["kept", "recomputed", "many words and trained rows"],
)
def test_a_step_takes_what_the_plan_says(benchmark: ModuleType, vocab: int, rows: int, checkpointing: bool) -> None:
    case = benchmark.Case(256, 6, 8, 4, 704, vocab, 2, 192, benchmark.ALL, checkpointing, rows)
    assert benchmark.planned(case) == pytest.approx(benchmark.measured(case), rel=0.1)
