"""What goes wrong on the real server: not reviewed, failing, two drivers, Ctrl-C, kill -9, a server that dies."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from typing import Any

import drive_quick
import pytest
from drive_project import Maker

import kchain.bundle
from kchain.errors import (
    AdapterRefused,
    DriverLocked,
    KchainError,
    NotReviewed,
    PhaseFailed,
    PushRefused,
)
from kchain.server import launch


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


def test_a_second_driver_exits_with_3_and_after_ctrl_c_on_the_first_the_same_command_goes_on(make: Maker) -> None:
    project = make(phases=1)
    root = project.target.local_root
    launch.ensure_running(root, profile="like-kaggle", switches={"queue_seconds": 3600})  # nothing ends meanwhile
    first = project.start("watch", "--yes")
    wait_for(first, "pushed version 1")
    code, _, error = project.run("watch")
    assert code == 3
    assert f"process {first.pid} on" in error
    with pytest.raises(DriverLocked):
        project.push("one", again=True)
    first.send_signal(signal.SIGINT)
    _, error = first.communicate(timeout=300)
    assert first.returncode == 130, error
    assert "Traceback" not in error
    code, _, error = project.run("push", "one", "--no-wait", "--again")
    assert code == 3, error
    assert "queued" in error.lower()
    launch.stop(root)
    launch.ensure_running(root, profile="like-kaggle", switches={"queue_seconds": 0})
    code, _, error = project.run("watch")
    assert code == 0, error
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
    _, error = driver.communicate(timeout=300)
    assert driver.returncode == 1, error
    assert "ERROR" in error
    assert "kchain/cli" not in error, "the session's own traceback may be told, one of kchain not"
    assert project.versions() == [1]


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
