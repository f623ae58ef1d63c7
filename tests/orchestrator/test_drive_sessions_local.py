"""Phases of several sessions on the real embedded server, in every way it may treat a kernel's own output."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import drive_quick
import pytest
from drive_project import OWNER, Project

import kchain.bundle
from kchain.bundle import continuation_of
from kchain.errors import NotNow
from kchain.orchestrator.adopt import Origin, adopt
from kchain.orchestrator.journal.journal import JOURNAL
from kchain.server import launch

Starter = Callable[..., Project]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starter]:
    """A project whose local server behaves as told."""
    monkeypatch.setattr(kchain.bundle, "build", drive_quick.quick_build)
    made: list[Project] = []

    def new(how: dict[str, str], phases: int = 1, profile: str = "machine", **switches: Any) -> Project:
        project = Project(tmp_path / "project", phases=phases, how=how)
        made.append(project)
        launch.ensure_running(project.target.local_root, profile=profile, switches=switches)
        return project

    yield new
    for project in made:
        launch.stop(project.target.local_root)


def told(project: Project, phase: str) -> list[tuple[int, str]]:
    """(session, kind of source) of each version of a phase; a first session has none."""
    ref = project.chain.kernel(phase)
    current = project.client.kernel(ref)
    assert current is not None
    kernels = [project.client.kernel(ref, number) for number in range(1, current.version + 1)]
    found = [continuation_of(json.loads(kernel.source)) for kernel in kernels if kernel is not None]
    return [(1, "") if each is None else (each.session, each.kind) for each in found]


@pytest.mark.parametrize(
    ("profile", "switches", "one", "two"),
    [
        pytest.param(
            "machine", {}, [(1, ""), (2, "kernel"), (3, "kernel")], [(1, ""), (2, "kernel")], marks=pytest.mark.long
        ),
        (
            "like-kaggle",
            {"queue_seconds": 0.0},
            [(1, ""), (2, "kernel"), (2, "dataset"), (3, "dataset")],
            [(1, ""), (2, "dataset")],
        ),
        pytest.param(
            "like-kaggle",
            {"own_output": "mounted"},
            [(1, ""), (2, "kernel"), (3, "kernel")],
            [(1, ""), (2, "kernel")],
            marks=pytest.mark.long,
        ),
        pytest.param(
            "machine",
            {"own_output": "invalid", "dataset_seconds": 1.0},
            [(1, ""), (2, "kernel"), (2, "dataset"), (3, "dataset")],
            [(1, ""), (2, "dataset")],
            marks=pytest.mark.long,
        ),
    ],
    ids=["machine", "like-kaggle", "like-kaggle, mounted", "machine, invalid"],
)
def test_a_chain_whose_phases_take_several_sessions_runs_through(
    start: Starter, profile: str, switches: dict[str, Any], one: list[Any], two: list[Any]
) -> None:
    project = start({"one": "3 sessions", "two": "2 sessions"}, 2, profile, **switches)
    project.watch(yes=True)
    assert (told(project, "one"), told(project, "two")) == (one, two)
    states = project.states()
    first, second = states["one"].result, states["two"].result
    assert first is not None and second is not None and second.lineage is not None
    assert second.lineage[0].sha256 == first.sha256
    assert first.version == len(one)
    assert first.metrics["steps"] == 4


def test_between_two_sessions_everything_says_where_the_phase_stands(start: Starter) -> None:
    project = start({"one": "3 sessions"})
    code, out, _ = project.run("review")
    assert "at most 3 sessions of 10 min = 30 min" in out
    while not (state := project.states().get("one")) or state.checkpoint is None:
        project.watch(once=True)
        time.sleep(0.2)
    code, out, _ = project.run("status")
    assert code == 0
    assert re.search(r"one +(paused|running|queued|ended|pushed) +session [12] of 3, step 1 of 4", out), out
    code, out, _ = project.run("status", "--json")
    (row,) = json.loads(out)["phases"]
    assert (row["max_sessions"], row["step"], row["of_steps"]) == (3, 1, 4)
    project.watch()
    code, out, _ = project.run("logs", "one")
    assert '"event": "result", "status": "complete"' in out
    code, out, _ = project.run("push", "one")
    assert "nothing to push: version 3 of one is this bundle" in out
    code, out, _ = project.run("review", "one")
    assert "(reviewed before)" in out and "changes: since version 3" in out and out.rstrip().splitlines()[-3] == "none"


@pytest.mark.long
def test_after_a_failed_session_a_review_lets_the_run_go_on(start: Starter) -> None:
    project = start({"one": "2 sessions, breaks later"})
    project.review()
    for _ in range(2):
        code, _, error = project.run("watch")
        assert code == 1
        assert "CUDA out of memory" in error
        assert "it resumes from step 1 of 4, as session 2 of 3" in error
    drive_quick.write_phase(project.root, "one", None, "2 sessions")
    code, out, _ = project.run("review", "one")
    assert re.search(r"goes on +session 2 of 3, from step 1 of 4", out), out
    code, out, error = project.run("watch")
    assert code == 0, error
    assert told(project, "one") == [(1, ""), (2, "kernel"), (2, "dataset")]


@pytest.mark.parametrize("own_output", [pytest.param("mounted", marks=pytest.mark.long), "empty"])
def test_a_journal_lost_between_two_sessions_is_rebuilt_and_the_run_goes_on(start: Starter, own_output: str) -> None:
    project = start({"one": "3 sessions"}, own_output=own_output)
    while not (state := project.states().get("one")) or state.checkpoint is None:
        project.watch(yes=True, once=True)
        time.sleep(0.1)
    project.client.status(project.chain.kernel("one"))
    wait_until_idle(project)
    before = told(project, "one")
    for file in (project.root / ".kchain").glob(f"{JOURNAL.name}*"):
        file.unlink()
    with pytest.raises(NotNow, match=r"is known again, and not finished: session \d of 3 ended at step \d of 4"):
        rebuild(project)
    project.watch(yes=True)
    assert told(project, "one")[: len(before)] == before
    assert told(project, "one")[-1][0] == 3
    assert project.states()["one"].result is not None


def rebuild(project: Project) -> None:
    adopt(project.chain, "one", project.target, Origin(kernel=f"{OWNER}/quick-phase-one"), project.listener)


def wait_until_idle(project: Project) -> None:
    while project.client.status(project.chain.kernel("one")).word in ("QUEUED", "RUNNING"):
        time.sleep(0.1)


@pytest.mark.long
@pytest.mark.parametrize("own_output", ["mounted", "empty"])
def test_killed_at_random_moments_a_phase_of_three_sessions_makes_no_session_too_many(
    start: Starter, own_output: str
) -> None:
    """kill -9 of the real command, six times, at moments drawn from the whole length of the run."""
    project = start({"one": "3 sessions, slow"}, own_output=own_output, dataset_seconds=1.0)
    moments = random.Random(5)
    for _ in range(6):
        driver = project.start("run")
        time.sleep(moments.uniform(0.5, 4.0))
        driver.kill()
        driver.communicate()
    code, _, error = project.run("run")
    assert code == 0, error
    assert [session for session, _ in told(project, "one")] == ([1, 2, 3] if own_output == "mounted" else [1, 2, 2, 3])
    state = project.states()["one"]
    assert state.result is not None and state.intent is None
