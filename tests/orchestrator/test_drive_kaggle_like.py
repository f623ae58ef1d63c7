"""The driver against the server's like-kaggle profile, and against answers that never come: over the real wire."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import drive_quick
import pytest
from drive_project import Project

import kchain.bundle
from kchain.client.login import KEY_FILE_VARIABLE
from kchain.errors import QuotaUsedUp, SessionCap
from kchain.server import launch

Starter = Callable[..., Project]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Starter]:
    """A project whose local server behaves as told."""
    monkeypatch.setattr(kchain.bundle, "build", drive_quick.quick_build)
    made: list[Project] = []

    def new(phases: int = 1, how: dict[str, str] | None = None, **switches: Any) -> Project:
        project = Project(tmp_path / "project", phases=phases, how=how)
        made.append(project)
        launch.ensure_running(project.target.local_root, profile="like-kaggle", switches=switches)
        return project

    yield new
    for project in made:
        launch.stop(project.target.local_root)


def script(project: Project, *faults: dict[str, Any]) -> None:
    endpoint = launch.find(project.target.local_root)
    assert endpoint is not None
    launch.control(endpoint, "faults", {"faults": list(faults)})


def test_a_chain_runs_where_the_service_is_as_strict_as_kaggle(start: Starter) -> None:
    project = start(phases=2, queue_seconds=0.5)
    project.watch(yes=True)
    assert project.versions() == [1, 1]


def test_a_kernel_that_is_not_visible_yet_is_not_pushed_twice(start: Starter) -> None:
    """Right after the first push the service answers 403, and the answer to the push itself was lost."""
    project = start(visible_seconds=3.0, queue_seconds=0.0)
    script(project, {"method": "SaveKernel", "kind": "commit-then-reset"})
    project.watch(yes=True)
    assert project.versions() == [1]
    assert project.listener.said("no clear answer")


def test_a_push_whose_answer_was_lost_is_found_again(start: Starter) -> None:
    kinds = ("commit-then-500", "commit-then-html", "commit-then-empty", "cut")
    project = start(phases=4, queue_seconds=0.0)
    script(project, *({"method": "SaveKernel", "kind": kind} for kind in kinds))
    project.watch(yes=True)
    assert project.versions() == [1, 1, 1, 1]
    assert all(state.result is not None for state in project.states().values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param("503", marks=pytest.mark.long), "reset"])
def test_a_push_that_never_arrived_is_sent_once_more(start: Starter, kind: str) -> None:
    project = start(queue_seconds=0.0)
    script(project, {"method": "SaveKernel", "kind": kind})
    project.watch(yes=True)
    assert project.versions() == [1]


def test_a_conflict_on_a_running_kernel_never_happens(start: Starter) -> None:
    """A9: someone's version runs; the push waits for its end and meets no 409."""
    project = start(how={"one": "slow"}, on_running="conflict", queue_seconds=0.0)
    first = project.push("one", yes=True)
    second = project.push("one", again=True)
    assert (first.version, second.version) == (1, 2)
    assert not project.listener.said("409")
    assert project.listener.said("running")


@pytest.mark.slow
def test_a_full_cap_is_waited_for_until_a_session_ends(start: Starter) -> None:
    project = start(how={"one": "slow"}, cpu_sessions=1, queue_seconds=0.0)
    drive_quick.write_phase(project.root, "other", None, "Teaches it.")
    project.push("one", yes=True)
    with pytest.raises(SessionCap) as told:
        project.push("other", yes=True, wait=False)
    assert told.value.exit_code == 3
    assert project.push("other").version == 1
    assert project.listener.said("session count of 1 reached")


def test_a_used_up_quota_is_said_with_its_hours(start: Starter, monkeypatch: pytest.MonkeyPatch) -> None:
    project = start(gpu_hours=0.0)
    text = (project.root / "kchain.toml").read_text(encoding="utf-8")
    (project.root / "kchain.toml").write_text(text.replace('"cpu"', '"NvidiaTeslaT4"'), encoding="utf-8")
    with pytest.raises(QuotaUsedUp, match="quota") as told:
        project.watch(yes=True)
    assert told.value.exit_code == 3
    assert project.versions() == [0]


def test_a_service_that_answers_nonsense_in_between_costs_nothing(start: Starter) -> None:
    project = start(queue_seconds=0.0)
    script(
        project,
        {"method": "GetKernelSessionStatus", "kind": "html", "skip": 1, "calls": 2},
        {"method": "GetKernel", "kind": "500", "skip": 1, "calls": 1},
        {"method": "ListKernelSessionOutput", "kind": "429", "calls": 1},
        {"method": "Download", "kind": "cut", "calls": 2},
        {"method": "LogStream", "kind": "reset", "calls": 1},
    )
    project.watch(yes=True)
    assert project.versions() == [1]
    assert project.states()["one"].result is not None


def test_a_target_that_is_not_there_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kchain.bundle, "build", drive_quick.quick_build)
    project = Project(tmp_path / "project", phases=1)
    key = tmp_path / "key"
    key.write_text("secret\n", encoding="utf-8")
    key.chmod(0o600)
    monkeypatch.setenv(KEY_FILE_VARIABLE, str(key))
    code, _, error = project.run("watch", "--yes", "--target", "http://127.0.0.1:9")
    assert code == 4, error
    assert "http://127.0.0.1:9" in error
    assert "Traceback" not in error
    assert project.states() == {}
