"""The model world and the quick notebooks live with the tests of the orchestrator."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "orchestrator"))

if TYPE_CHECKING:
    from inbox_place import Place


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    from inbox_place import Place, with_points

    made = Place(tmp_path)
    with with_points(made.world.service.points):
        made.world.review("one")
        made.world.service.points.names.clear()
        yield made
