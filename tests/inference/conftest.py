"""The finished chain of the export's tests, and its models loaded once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.append(str(Path(__file__).parents[1] / "export"))

from export_tools import PAD, base_of, finish  # noqa: E402

if TYPE_CHECKING:
    from kchain.uses.speaker import Speaker
    from kchain.uses.subject import Subject


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two verified phases."""
    return finish(tmp_path_factory.mktemp("spoken"))


@pytest.fixture(scope="session")
def subject(project: Path) -> Subject:
    """Its end."""
    from kchain.client.target import Target
    from kchain.phases import load_chain
    from kchain.publish.content import read_subject

    chain = load_chain(project)
    return read_subject(chain, "phase2", Target("local", chain.owner, project), None)


@pytest.fixture(scope="session")
def speaker(subject: Subject) -> Speaker:
    """The chain, loaded."""
    from kchain.uses.speaker import load_chain

    return load_chain(subject, "auto")


@pytest.fixture(scope="session")
def base_speaker(project: Path) -> Speaker:
    """The base model alone."""
    from kchain.uses.speaker import Speaker

    return Speaker(base_of(project), base_of(project), PAD, (), "auto")
