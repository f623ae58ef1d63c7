"""Chains on the real embedded server, with the real client and real sessions; the notebooks train nothing."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import drive_quick
import pytest
from drive_project import OWNER, Project

import kchain.bundle
from kchain.errors import (
    AdapterRefused,
    DriverLocked,
    InputError,
    KchainError,
    NotReviewed,
    PhaseFailed,
    PushRefused,
)
from kchain.orchestrator.adopt import Origin, adopt
from kchain.orchestrator.adopted import adopted
from kchain.orchestrator.journal import JOURNAL
from kchain.orchestrator.push import preview
from kchain.orchestrator.review import review
from kchain.server import launch

Maker = Callable[..., Project]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Maker]:
    monkeypatch.setattr(kchain.bundle, "build", drive_quick.quick_build)
    made: list[Project] = []

    def new(name: str = "project", **options: Any) -> Project:
        made.append(Project(tmp_path / name, **options))
        return made[-1]

    yield new
    for project in made:
        launch.stop(project.target.local_root)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A chain of two phases that has run; tests of it change nothing on the server."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kchain.bundle, "build", drive_quick.quick_build)
        project = Project(tmp_path_factory.mktemp("finished") / "project")
        project.watch(yes=True)
        yield project
        launch.stop(project.target.local_root)


def test_a_chain_runs_through_and_each_phase_builds_on_the_one_before(finished: Project) -> None:
    states = finished.states()
    one, two = states["one"].result, states["two"].result
    assert one is not None
    assert two is not None
    assert [(ancestor.phase, ancestor.sha256) for ancestor in two.lineage or ()] == [("one", one.sha256)]
    assert (two.version, two.pad_id, two.metrics["steps"]) == (1, 151645, 4)
    assert (finished.root / two.folder / "adapter_model.safetensors").is_file()
    steps = [event["step"] for phase, event in finished.listener.events if phase == "one" and event["event"] == "step"]
    assert steps == [1, 2, 3, 4]


def test_run_again_a_finished_chain_pushes_nothing_and_says_so(finished: Project) -> None:
    code, out, error = finished.run("watch")
    assert (code, error) == (0, "")
    assert "nothing was pushed" in out
    assert "2.000 -> 0.500" in out
    assert finished.versions() == [1, 1]


def test_pushing_a_finished_phase_again_is_a_no_op(finished: Project) -> None:
    code, out, _ = finished.run("push", "one")
    assert code == 0
    assert "nothing to push: version 1 of one is this bundle" in out
    assert finished.versions() == [1, 1]


def test_status_is_a_table_for_people_and_json_for_programs(finished: Project) -> None:
    code, out, _ = finished.run("status")
    assert code == 0
    assert re.search(r"one +done +1 +0\.500 +80\.0%", out)
    code, out, _ = finished.run("status", "--json")
    phases = json.loads(out)["phases"]
    assert [(row["phase"], row["state"], row["version"], row["next"]) for row in phases] == [
        ("one", "done", 1, ""),
        ("two", "done", 1, ""),
    ]


def test_logs_show_what_the_notebook_printed(finished: Project) -> None:
    for arguments in (["logs", "one"], ["logs", "one", "-f"]):
        code, out, _ = finished.run(*arguments)
        assert code == 0
        assert 'kchain: {"event": "step", "step": 4' in out


def test_pull_fetches_the_outputs_again(finished: Project) -> None:
    folder = finished.root / "runs" / "local" / "two" / "v1"
    (folder / "kchain-result.json").write_text("{}", encoding="utf-8")
    code, out, _ = finished.run("pull", "two")
    assert code == 0
    assert "adapter/adapter_model.safetensors" in out
    assert json.loads((folder / "kchain-result.json").read_text(encoding="utf-8"))["phase"] == "two"


def test_a_dry_run_shows_everything_and_changes_nothing(finished: Project) -> None:
    before = (finished.root / JOURNAL).read_bytes()
    shown = preview(finished.chain, "two", finished.target, again=True)
    assert shown.verdict == "would push over version 1"
    assert shown.metadata["kernel_sources"] == [f"{OWNER}/quick-phase-one"]
    assert shown.command == "kaggle kernels push -p build/local/two -t 600"
    assert "would push nothing" in preview(finished.chain, "two", finished.target, again=False).verdict
    assert (finished.root / JOURNAL).read_bytes() == before
    assert finished.versions() == [1, 1]


def test_review_shows_no_change_after_a_push_and_the_change_after_an_edit(finished: Project) -> None:
    (before,) = review(finished.chain, finished.target, ["two"])
    assert (before.changes, before.pushed, before.known) == ((), 1, True)
    drive_quick.write_phase(finished.root, "two", "one", "Teaches it better.")
    (after,) = review(finished.chain, finished.target, ["two"])
    drive_quick.write_phase(finished.root, "two", "one", "Teaches it.")
    assert not after.known
    assert any(line.startswith("-") and "Teaches it." in line for line in after.changes)
    assert any(line.startswith("+") and "Teaches it better." in line for line in after.changes)


def test_a_lost_journal_is_rebuilt_from_the_kernels(finished: Project, tmp_path: Path) -> None:
    states = finished.states()
    moved = tmp_path / "journal.db"
    (finished.root / JOURNAL).rename(moved)
    for phase in ("one", "two"):
        code, out, error = finished.run("adopt", phase, "--kernel", f"{OWNER}/quick-phase-{phase}")
        assert code == 0, error
        assert f"{phase} is done" in out
    rebuilt = finished.states()
    for phase in ("one", "two"):
        old, new = states[phase].result, rebuilt[phase].result
        assert old is not None
        assert new is not None
        assert (old.sha256, old.lineage, old.version, old.adopted) == (
            new.sha256,
            new.lineage,
            new.version,
            new.adopted,
        )
    assert adopted(finished.root, "local") == {}
    finished.watch()
    assert finished.versions() == [1, 1]


def test_an_adapter_in_another_kernel_is_taken_over(make: Maker) -> None:
    project = make(phases=1)
    with pytest.raises(InputError, match="no such kernel"):
        adopt(project.chain, "one", project.target, Origin(kernel=f"{OWNER}/nothing"), project.listener)
    with pytest.raises(InputError, match="not one that kchain pushed"):
        adopt(project.chain, "one", project.target, Origin(kernel=f"{OWNER}/quick-phase-one"), project.listener)
    project.watch(yes=True)
    drive_quick.write_phase(project.root, "other", None, "Teaches something else.")
    origin = Origin(kernel=f"{OWNER}/quick-phase-one")
    taken = adopt(project.chain, "other", project.target, origin, project.listener)
    assert (taken.kind, taken.version, taken.source_folder, taken.lineage) == ("kernel", 1, "adapter", ())
    source = adopted(project.root, "local")["other"]
    assert (source.kind, source.ref, source.sha256) == ("kernel", f"{OWNER}/quick-phase-one", taken.sha256)


def test_nothing_is_pushed_that_was_not_reviewed(make: Maker) -> None:
    project = make(phases=1)
    code, _, error = project.run("watch")
    assert code == 3
    assert "kchain review one" in error
    code, out, _ = project.run("review")
    assert code == 0
    assert "Reviewed: one" in out
    notebook = project.root / "build" / "local" / "one" / "notebook.ipynb"
    notebook.write_text(notebook.read_text(encoding="utf-8").replace("2.0 / step", "0.0"), encoding="utf-8")
    code, _, error = project.run("push", "one")
    assert code == 3
    assert "not what its phase file renders to" in error
    assert project.versions() == [0]


@pytest.mark.parametrize(
    ("how", "error", "words"),
    [
        ("raises", PhaseFailed, ["CUDA out of memory", "halve `batch`"]),
        ("partial", PhaseFailed, ["missed its gates", "all epochs", "its own time limit"]),
        ("bad pad", PhaseFailed, ["pad id: wanted 151645, got 151654"]),
        ("zero", AdapterRefused, ["every B matrix is zero"]),
        ("no result", PhaseFailed, ["left no kchain-result.json"]),
    ],
)
def test_a_phase_that_fails_stops_the_chain_and_says_why(
    make: Maker, how: str, error: type[KchainError], words: list[str]
) -> None:
    project = make(how={"one": how})
    with pytest.raises(error) as told:
        project.watch(yes=True)
    assert all(word in str(told.value) for word in words), str(told.value)
    assert project.versions() == [1, 0]
    with pytest.raises(error):
        project.watch(yes=True)
    assert project.versions() == [1, 0]


def test_a_failed_phase_is_pushed_again_once_it_was_changed_and_reviewed(make: Maker) -> None:
    project = make(phases=1, how={"one": "partial"})
    with pytest.raises(PhaseFailed):
        project.watch(yes=True)
    drive_quick.write_phase(project.root, "one", None, "Teaches it.")
    with pytest.raises(NotReviewed):
        project.watch()
    project.review()
    project.watch()
    assert project.versions() == [2]
    assert project.states()["one"].result is not None


def test_a_second_driver_exits_with_3_and_names_the_first(make: Maker) -> None:
    project = make(phases=1, how={"one": "slow"})
    first = project.start("watch", "--yes")
    assert first.stdout is not None
    wait_for(first, "pushed version 1")
    code, _, error = project.run("watch")
    assert code == 3
    assert f"process {first.pid} on" in error
    with pytest.raises(DriverLocked):
        project.push("one", again=True)
    _, problem = first.communicate(timeout=60)
    assert first.returncode == 0, problem
    assert project.versions() == [1]


def test_ctrl_c_exits_with_130_and_the_same_command_goes_on(make: Maker) -> None:
    project = make(phases=1, how={"one": "slow"})
    first = project.start("watch", "--yes")
    wait_for(first, "stage train")
    first.send_signal(signal.SIGINT)
    _, error = first.communicate(timeout=30)
    assert first.returncode == 130, error
    assert "Traceback" not in error
    code, _, error = project.run("push", "one", "--no-wait")
    assert code == 3, error
    assert "running" in error
    code, out, _ = project.run("watch")
    assert code == 0
    assert project.versions() == [1]


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    raise AssertionError(f"it never said {words!r}: {process.communicate()[1]}")


@pytest.mark.slow
def test_killed_at_random_moments_a_chain_ends_with_one_version_per_phase(make: Maker) -> None:
    """kill -9 of the real command, five times, at moments drawn from the whole length of a chain."""
    project = make(phases=2)
    moments = random.Random(7)
    kills = 0
    for _ in range(5):
        driver = project.start("run")
        time.sleep(moments.uniform(0.3, 2.5))
        kills += driver.poll() is None
        driver.kill()
        driver.communicate()
    assert kills >= 3
    code, _, error = project.run("run")
    assert code == 0, error
    assert project.versions() == [1, 1]
    assert all(state.result is not None and state.intent is None for state in project.states().values())


def test_a_server_that_dies_is_started_again_and_its_session_fails(make: Maker) -> None:
    project = make(phases=1, how={"one": "slow"})
    driver = project.start("watch", "--yes")
    wait_for(driver, "stage train")
    endpoint = launch.find(project.target.local_root)
    assert endpoint is not None
    os.kill(endpoint.pid, signal.SIGKILL)
    _, error = driver.communicate(timeout=60)
    assert driver.returncode == 1, error
    assert "ERROR" in error
    assert "Traceback (most" not in error
    assert project.versions() == [1]


def test_an_adapter_from_a_folder_becomes_the_result_of_a_phase_and_the_next_builds_on_it(
    make: Maker, finished: Project
) -> None:
    result = finished.states()["one"].result
    assert result is not None
    theirs = finished.root / result.folder
    project = make("taken")
    taken = adopt(project.chain, "one", project.target, Origin(folder=theirs), project.listener)
    assert (taken.sha256, taken.kind, taken.adopted) == (result.sha256, "dataset", True)
    assert taken.ref == f"{OWNER}/quick-one-adapter-{result.sha256[:8]}"
    assert set(adopted(project.root, "local")) == {"one"}
    again = adopt(project.chain, "one", project.target, Origin(dataset=taken.ref), project.listener)
    assert again.sha256 == taken.sha256
    project.watch(yes=True)
    two = project.states()["two"].result
    assert two is not None
    assert [ancestor.sha256 for ancestor in two.lineage or ()] == [result.sha256]
    assert project.versions() == [0, 1]


def test_an_adapter_trained_on_other_adapters_is_not_taken_over(make: Maker, finished: Project) -> None:
    first, second = (finished.states()[phase].result for phase in ("one", "two"))
    assert first is not None
    assert second is not None
    project = make("ancestors")
    for phase in ("one", "two"):
        result = first if phase == "one" else second
        adopt(project.chain, phase, project.target, Origin(folder=finished.root / result.folder), project.listener)
    before = project.states()
    with pytest.raises(AdapterRefused, match="trained on the base alone, two builds on"):
        adopt(project.chain, "two", project.target, Origin(folder=finished.root / first.folder), project.listener)
    assert project.states() == before


def test_another_adapter_from_a_folder_does_not_meet_the_data_set_of_the_one_before(
    make: Maker, finished: Project
) -> None:
    project = make("again")
    refs = []
    for phase in ("one", "two"):
        result = finished.states()[phase].result
        assert result is not None
        folder = project.root / f"theirs-{phase}"
        shutil.copytree(finished.root / result.folder, folder)
        (folder / "kchain-result.json").unlink(missing_ok=True)
        refs.append(adopt(project.chain, "one", project.target, Origin(folder=folder), project.listener).ref)
    assert len(set(refs)) == 2


def test_an_adapter_that_does_not_belong_to_the_chain_is_not_taken_over(make: Maker, finished: Project) -> None:
    project = make("refusing")
    result = finished.states()["one"].result
    assert result is not None
    origin = Origin(folder=finished.root / result.folder)
    with pytest.raises(AdapterRefused, match="151654"):
        adopt(project.chain, "one", project.target, origin, project.listener, pad_id=151654)
    (project.root / "empty").mkdir()
    with pytest.raises(InputError, match="no adapter_model.safetensors"):
        adopt(project.chain, "one", project.target, Origin(folder=project.root / "empty"), project.listener)
    text = (project.root / "kchain.toml").read_text(encoding="utf-8").replace("r = 2", "r = 8")
    (project.root / "kchain.toml").write_text(text, encoding="utf-8")
    with pytest.raises(AdapterRefused, match="another LoRA than the chain's"):
        adopt(project.chain, "one", project.target, origin, project.listener)
    assert project.states() == {}


def test_a_source_that_does_not_exist_is_pushed_at_most_twice(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def with_ghost(*arguments: Any) -> Any:
        bundle = drive_quick.quick_build(*arguments)
        bundle.metadata["kernel_sources"] = ["someone/no-such-kernel"]
        found = kchain.bundle.canonical_hash(bundle.notebook, bundle.metadata, bundle.timeout)
        drive_quick.stamp(bundle.notebook, found)
        return drive_quick.replace(bundle, hash=found)

    monkeypatch.setattr(kchain.bundle, "build", with_ghost)
    project = make(phases=1)
    with pytest.raises(PushRefused, match="someone/no-such-kernel"):
        project.watch(yes=True)
    assert project.versions() == [2]
