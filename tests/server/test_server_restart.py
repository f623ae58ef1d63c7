"""What a server that dies leaves behind: nothing running, nothing lost."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server_tools import KERNELS, Running, create_dataset, notebook, until

from kchain.errors import Unreachable
from kchain.server import launch
from kchain.server import runner as runner_module

Start = Callable[..., Running]


def forever(pid_file: Path) -> str:
    """A notebook that leaves a child in a session of its own, and does not end."""
    return notebook(
        "import subprocess, time\nchild = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\nprint('running', flush=True)\ntime.sleep(600)"
    )


def test_kill_9_ends_the_running_session_and_keeps_everything_else(start: Start, tmp_path: Path) -> None:
    server = start("machine", cpu_slots=1)
    create_dataset(server, "kept-data", {"a.txt": b"a"})
    server.push("done-kernel", notebook("open('out.txt', 'w').write('o')"))
    server.finished("done-kernel")
    server.push("running-kernel", forever(tmp_path / "pid"))
    until("its child", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    server.push("queued-kernel", notebook("print('later')"), datasetDataSources=["ana/kept-data"])
    folder = max((server.root / "sessions").iterdir(), key=lambda path: int(path.name))
    assert runner_module.of_session(folder, runner=True)

    server.kill()
    until("the end of its processes, without any server", lambda: not runner_module.of_session(folder, runner=True))
    server.restart()
    assert server.finished("running-kernel") == {
        "status": "ERROR",
        "failureMessage": "The server ended while this session ran.",
    }
    assert "running" in server.outputs("running-kernel")["log"]
    assert server.finished("queued-kernel")["status"] == "COMPLETE"
    assert server.status("done-kernel")["status"] == "COMPLETE"
    assert [file["fileName"] for file in server.outputs("done-kernel")["files"]] == ["out.txt"]


def test_a_session_killed_together_with_its_server_is_cleaned_up_by_the_next(start: Start, tmp_path: Path) -> None:
    server = start("machine")
    server.push("orphan-kernel", forever(tmp_path / "pid"))
    until("its child", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    folder = max((server.root / "sessions").iterdir(), key=lambda path: int(path.name))
    runner = set(runner_module.of_session(folder, runner=True)) - set(runner_module.of_session(folder, runner=False))
    assert len(runner) == 1
    server.kill()
    for process in runner:
        process.kill()
    server.restart()
    assert server.finished("orphan-kernel")["status"] == "ERROR"
    assert not runner_module.of_session(folder, runner=True)


def test_a_killed_runner_makes_an_error_at_once(start: Start, tmp_path: Path) -> None:
    server = start("machine")
    server.push("runnerless-kernel", forever(tmp_path / "pid"))
    until("its child", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    folder = max((server.root / "sessions").iterdir(), key=lambda path: int(path.name))
    for process in set(runner_module.of_session(folder, runner=True)) - set(
        runner_module.of_session(folder, runner=False)
    ):
        process.kill()
    ended = server.finished("runnerless-kernel")
    assert ended["status"] == "ERROR" and "unexpectedly" in ended["failureMessage"]
    until("the end of what it left", lambda: not runner_module.of_session(folder, runner=True))


def test_a_finished_session_leaves_neither_scratch_nor_mounts(start: Start) -> None:
    server = start("machine")
    create_dataset(server, "mounted-data", {"a.txt": b"a"})
    write = (
        "import os\nopen(os.environ['KCHAIN_KAGGLE_ROOT'] + '/temp/big', 'w').write('b')\nopen('kept', 'w').write('k')"
    )
    server.push("tidy-kernel", notebook(write), datasetDataSources=["ana/mounted-data"])
    assert server.finished("tidy-kernel")["status"] == "COMPLETE"
    folder = max((server.root / "sessions").iterdir(), key=lambda path: int(path.name))
    assert [path.name for path in (folder / "kaggle").iterdir()] == ["working"]
    assert "__notebook__.ipynb" in [path.name for path in folder.iterdir()]


def test_one_server_per_root_however_many_want_one(tmp_path: Path) -> None:
    root = tmp_path / "root"
    try:
        with ThreadPoolExecutor(6) as pool:
            endpoints = set(pool.map(lambda _: launch.ensure_running(root), range(6)))
        assert len(endpoints) == 1
        command = [sys.executable, "-m", "kchain.server", "--root", str(root)]
        second = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert second.returncode == 3 and "a server is running" in second.stderr
    finally:
        assert launch.stop(root)
    assert not launch.stop(root)
    assert launch.find(root) is None


def test_a_server_that_nobody_needs_leaves_but_not_while_something_runs(tmp_path: Path) -> None:
    root = tmp_path / "root"
    endpoint = launch.ensure_running(root, profile="machine", idle_seconds=5)
    server = Running.__new__(Running)
    server.root, server.endpoint = root, endpoint
    gate = tmp_path / "gate"
    server.push(
        "holding-kernel", notebook(f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.05)")
    )
    server.reaches("holding-kernel", "RUNNING")
    time.sleep(8)  # more than an idle span
    assert (root / launch.ENDPOINT).exists()
    gate.touch()
    until("the server's leaving", lambda: not (root / launch.ENDPOINT).exists())
    assert launch.ensure_running(root).pid != endpoint.pid
    launch.stop(root)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "profile.json").write_text('{"name": "like-kaggle", "no_such_switch": 1}', encoding="utf-8")
    with pytest.raises(Unreachable) as caught:
        launch.ensure_running(root)
    assert "switches are" in caught.value.hint


def test_a_version_pushed_before_a_crash_is_there_after_it(start: Start) -> None:
    server = start("like-kaggle", queue_seconds=3600)
    for number in range(3):
        server.push("durable-kernel", notebook(f"print({number})"))
    server.kill()
    server.restart()
    got = server.rpc(f"{KERNELS}/GetKernel", {"userName": "ana", "kernelSlug": "durable-kernel"})
    assert got["metadata"]["currentVersionNumber"] == 3
    assert server.status("durable-kernel")["status"] == "QUEUED"


def test_what_a_dead_upload_left_is_swept_but_not_what_may_be_in_use(start: Start) -> None:
    server = start("machine")
    started = server.rpc("blobs.BlobApiService/StartBlobUpload", {"type": "DATASET", "name": "a.bin"})
    launch.stop(server.root)
    long_ago = time.time() - 8 * 24 * 3600
    for name in (".new-old", ".upload-old", ".new-young"):
        (server.root / name / "sub").mkdir(parents=True)
    for name in (".new-old", ".upload-old"):
        os.utime(server.root / name, (long_ago, long_ago))
    with sqlite3.connect(server.root / "state.db") as db:
        db.execute("UPDATE blobs SET created = ?", (long_ago,))
    server.restart()
    assert sorted(path.name for path in server.root.glob(".*-*")) == [".new-young"]
    assert not (server.root / "blobs" / started["token"]).exists()


def test_a_dead_servers_key_is_not_shown_to_whoever_has_its_port(start: Start) -> None:
    server = start("machine")
    server.kill()
    said = json.loads((server.root / launch.ENDPOINT).read_text(encoding="utf-8"))
    with socket.create_server(("127.0.0.1", 0)) as other:  # as if it had got the dead server's port
        address = f"http://127.0.0.1:{other.getsockname()[1]}"
        (server.root / launch.ENDPOINT).write_text(json.dumps({**said, "url": address}), encoding="utf-8")
        assert launch.find(server.root) is None
        other.settimeout(0.2)
        with pytest.raises(TimeoutError):
            other.accept()
    server.restart()
    assert launch.find(server.root) == server.endpoint
