"""Projects on real servers of their own whose notebooks train nothing, and one of them that has run through."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drive_quick
import pytest
from drive_project import Maker, Project

import kchain.bundle
from kchain.server import launch


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles whose notebooks train nothing, in this process."""
    monkeypatch.setattr(kchain.bundle, "build", drive_quick.quick_build)


@pytest.fixture
def make(tmp_path: Path, quick: None) -> Iterator[Maker]:
    """Makes projects; their servers end with the test."""
    made: list[Project] = []

    def new(name: str = "project", **options: Any) -> Project:
        made.append(Project(tmp_path / name, **options))
        return made[-1]

    yield new
    for project in made:
        launch.stop(project.target.local_root)


@pytest.fixture(scope="module")
def run_through(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A chain of two phases that has run; tests of it change nothing on the server, but may in its journal."""
    project = Project(tmp_path_factory.mktemp("finished") / "project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kchain.bundle, "build", drive_quick.quick_build)
        project.watch(yes=True)
    yield project
    launch.stop(project.target.local_root)


@pytest.fixture
def finished(run_through: Project, quick: None) -> Project:
    """The same chain, for one test."""
    return run_through
