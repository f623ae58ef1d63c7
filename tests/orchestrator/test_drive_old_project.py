"""A project that an older kchain left in the middle of its chain is driven on by this one.

`old_project/` was made with commit 4c8dab3 by `drive_quick`: phase one adopted from a folder, two trained, three of two
sessions with its second one over on the server and not yet read, four reviewed. Its two databases are SQL text, and
what only the server itself reads again (executed notebooks, its key and locks) is left out; @ROOT@ is the project.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from drive_model import Listener
from drive_project import OWNER, Project

from kchain.client.target import Target
from kchain.errors import NotReviewed
from kchain.orchestrator.finished import finished
from kchain.orchestrator.journal.journal import JOURNAL
from kchain.orchestrator.status import table
from kchain.server import launch

OLD = Path(__file__).parent / "old_project"


class OldProject(Project):
    """The old project as it lay on its disk."""

    def __init__(self, root: Path) -> None:
        self.root, self.listener = root, Listener()
        self.target = Target("local", OWNER, root)
        shutil.copytree(OLD / "project", root)
        server = self.target.local_root
        shutil.copytree(OLD / "server", server)
        restore(OLD / "journal.sql", root / JOURNAL, root)
        restore(OLD / "server.sql", server / "state.db", root)


def restore(dump: Path, to: Path, root: Path) -> None:
    db = sqlite3.connect(to)
    db.executescript(dump.read_text(encoding="utf-8").replace("@ROOT@", root.as_posix()))
    db.close()


@pytest.fixture
def old(tmp_path: Path, quick: None) -> Iterator[OldProject]:
    project = OldProject(tmp_path / "project")
    yield project
    launch.stop(project.target.local_root)


def test_an_old_project_is_known_and_driven_to_its_end(old: OldProject) -> None:
    rows = table(old.chain, old.states())
    assert [row.state for row in rows] == ["adopted", "done", "running", "reviewed"]
    assert rows[2].progress == "session 2 of 2, step 1 of 4"
    before = old.states()
    # What was reviewed by then may render otherwise by now, and is then to be read once more.
    with suppress(NotReviewed):
        old.watch()
    assert old.states()["three"].result is not None
    old.watch(yes=True)
    states = old.states()
    assert [row.state for row in table(old.chain, states)] == ["adopted", "done", "done", "done"]
    assert [states[phase].result for phase in ("one", "two")] == [before[phase].result for phase in ("one", "two")]
    assert old.versions() == [0, 1, 2, 1], "what had run already was not pushed again"
    four = states["four"].result
    assert four is not None
    results = [states[phase].result for phase in ("one", "two", "three")]
    assert [each.sha256 for each in four.lineage or ()] == [result.sha256 for result in results if result is not None]


def test_its_adapters_are_verified_where_they_lie(old: OldProject) -> None:
    links = finished(old.chain, old.states(), "two")
    assert [(link.phase, link.recorded.adopted, bool(link.result)) for link in links] == [
        ("one", True, True),
        ("two", False, True),
    ]
