"""A finished chain of two phases, made once, and its models loaded once; tests that change the project take a copy."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from export_tools import PAD, base_of, finish

if TYPE_CHECKING:
    from kchain.uses.speaker import Speaker
    from kchain.uses.subject import TrainedPhase

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


@pytest.fixture(scope="session")
def project(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy in which chats and evaluations may leave files."""
    return Path(shutil.copytree(finished, tmp_path_factory.mktemp("used") / "project"))


@pytest.fixture(scope="session")
def subject(project: Path) -> TrainedPhase:
    """Its end."""
    from kchain.client.target import Target
    from kchain.phases import load_chain
    from kchain.publish.content import read_subject

    chain = load_chain(project)
    return read_subject(chain, "phase2", Target("local", chain.owner, project), None)


@pytest.fixture(scope="session")
def speaker(subject: TrainedPhase) -> Speaker:
    """The chain, loaded."""
    from kchain.uses.speaker import load_chain

    return load_chain(subject, "auto")


@pytest.fixture(scope="session")
def base_speaker(project: Path) -> Speaker:
    """The base model alone."""
    from kchain.uses.speaker import Speaker

    return Speaker(base_of(project), base_of(project), PAD, (), "auto")
