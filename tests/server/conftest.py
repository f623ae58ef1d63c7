"""Running servers for the server's tests; each ends with its module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_tools import Running

from kchain.server import launch

QUICK = {"queue_seconds": 0, "dataset_seconds": 0}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Running]]:
    """Start a server: start("like-kaggle", switch=value). Waiting times are 0 unless given."""
    roots: list[Path] = []

    def begin(profile: str = "like-kaggle", **switches: Any) -> Running:
        root = tmp_path_factory.mktemp("server") / "root"
        roots.append(root)
        return Running(root, profile, **{**QUICK, **switches})

    yield begin
    for root in roots:
        launch.stop(root)


@pytest.fixture(scope="module")
def server(start: Callable[..., Running]) -> Running:
    """One like-kaggle server for the tests of a module that leave it usable, without caps."""
    return start("like-kaggle", cpu_sessions=None, gpu_sessions=None)
