"""The finished chain that the tests of exports have."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "uses"))

from export_tools import finish  # noqa: E402


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two verified phases."""
    return finish(tmp_path_factory.mktemp("finished"))
