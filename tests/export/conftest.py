"""A finished chain of two phases, made once; tests that change it take a copy."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from export_tools import finish

# The models of every kind that the GGUF benchmark compares with llama.cpp.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two verified phases."""
    return finish(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Callable[[], Path]:
    """A copy of that project, to be spoilt."""
    return lambda: Path(shutil.copytree(finished, tmp_path / "project"))
