"""The plain kaggle command against the server: push, status, logs, output, files, list, pull, delete, quota."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from server_tools import KAGGLE, KERNELS, Running, alive, kernel_folder, notebook, until

from kchain.server import runner

THREE_FILES = notebook(
    "import os, pathlib\nprint('größe', os.getcwd())",
    "for n in range(23): pathlib.Path(f'part-{n:02}.txt').write_text(str(n))\n"
    "os.makedirs('adapter', exist_ok=True); pathlib.Path('adapter/weights.bin').write_bytes(b'w' * 1000)",
)


def test_the_kaggle_command_pushes_reads_and_deletes_a_kernel(server: Running, tmp_path: Path) -> None:
    folder = kernel_folder(tmp_path / "bundle", "first-kernel", THREE_FILES)
    assert "Kernel version 1 successfully pushed" in server.kaggle("kernels", "push", "-p", str(folder))
    assert "größe" in server.kaggle("kernels", "logs", "-f", "ana/first-kernel")
    assert "KernelWorkerStatus.COMPLETE" in server.kaggle("kernels", "status", "ana/first-kernel")

    server.kaggle("kernels", "output", "ana/first-kernel", "-p", str(tmp_path / "out"))
    pulled = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert pulled == {f"part-{n:02}.txt" for n in range(23)} | {"adapter/weights.bin", "first-kernel.log"}
    assert (tmp_path / "out" / "adapter" / "weights.bin").read_bytes() == b"w" * 1000

    log = json.loads((tmp_path / "out" / "first-kernel.log").read_text(encoding="utf-8"))
    assert {"stream_name", "time", "data"} == set(log[0]) and log[0]["stream_name"] == "stdout"
    assert json.loads(server.kaggle("kernels", "logs", "ana/first-kernel")) == log
    assert "adapter/weights.bin" in server.kaggle("kernels", "files", "ana/first-kernel")
    assert "ana/first-kernel" in server.kaggle("kernels", "list", "--mine")
    assert "deleted" in server.kaggle("kernels", "delete", "-y", "ana/first-kernel")
    assert "denied" in server.kaggle("kernels", "status", "ana/first-kernel", code=1)


def test_pull_gives_back_source_and_metadata_of_any_version(server: Running, tmp_path: Path) -> None:
    for text in ("print('one')", "print('two')"):
        folder = kernel_folder(tmp_path / "bundle", "pulled-kernel", notebook(text), enable_internet=False)
        server.kaggle("kernels", "push", "-p", str(folder), "-t", "900")
    server.kaggle("kernels", "pull", "ana/pulled-kernel", "-m", "-p", str(tmp_path / "two"))
    server.kaggle("kernels", "pull", "ana/pulled-kernel/1", "-p", str(tmp_path / "one"))
    assert "print('two')" in (tmp_path / "two" / "pulled-kernel.ipynb").read_text(encoding="utf-8")
    assert "print('one')" in (tmp_path / "one" / "pulled-kernel.ipynb").read_text(encoding="utf-8")
    metadata = json.loads((tmp_path / "two" / "kernel-metadata.json").read_text(encoding="utf-8"))
    assert metadata["id"] == "ana/pulled-kernel" and metadata["is_private"] and not metadata["enable_internet"]


def test_a_version_can_be_named_in_all_three_ways(server: Running) -> None:
    server.push("named-versions", notebook("print('one')"))
    server.push("named-versions", notebook("print('two')"))
    for body in ({"kernelSlug": "named-versions/1"}, {"kernelSlug": "named-versions", "versionLabel": "v1"}):
        got = server.rpc(f"{KERNELS}/GetKernel", {"userName": "ana", **body})
        assert "print('one')" in got["blob"]["source"] and got["metadata"]["currentVersionNumber"] == 1
    latest = server.rpc(f"{KERNELS}/GetKernel", {"userName": "ana", "kernelSlug": "named-versions"})
    assert latest["metadata"]["currentVersionNumber"] == 2
    missing = server.post(f"{KERNELS}/GetKernel", {"userName": "ana", "kernelSlug": "named-versions/9"})
    assert missing.status_code == 404


def test_follow_prints_a_line_while_the_session_still_runs(server: Running, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waiting = "import os, subprocess, time\nsubprocess.run(['echo', 'from a child'], check=True)\nprint('before')\n"
    waiting += f"while not os.path.exists({str(gate)!r}): time.sleep(0.05)\nprint('after')"
    server.push("live-kernel", notebook(waiting))
    follower = subprocess.Popen(
        [str(KAGGLE), "kernels", "logs", "-f", "ana/live-kernel"],
        env=server.environment(tmp_path / "home"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    assert {follower.stdout.readline().strip(), follower.stdout.readline().strip()} == {"from a child", "before"}
    assert server.status("live-kernel")["status"] == "RUNNING"
    assert server.outputs("live-kernel").get("log", "") == "" and server.outputs("live-kernel")["files"] == []
    gate.touch()
    assert "after" in follower.stdout.read()
    assert follower.wait() == 0


def test_a_failing_cell_is_an_error_with_its_traceback_and_what_was_written(server: Running) -> None:
    cells = ("open('kept.txt', 'w').write('x')", "1 / 0", "print('never')")
    server.push("failing-kernel", notebook(*cells))
    ended = server.finished("failing-kernel")
    assert ended["status"] == "ERROR" and "ZeroDivisionError" in ended["failureMessage"]
    found = server.outputs("failing-kernel")
    assert [file["fileName"] for file in found["files"]] == ["kept.txt"]
    assert "ZeroDivisionError: division by zero" in found["log"] and "never" not in found["log"]


def test_a_notebook_without_kernelspec_fails_with_papermills_words(server: Running) -> None:
    server.push("no-kernelspec", notebook("print(1)", kernelspec=False))
    ended = server.finished("no-kernelspec")
    assert ended["status"] == "ERROR"
    assert ended["failureMessage"] == "No kernel name found in notebook and no override provided."


def test_what_is_no_notebook_ends_as_an_error(server: Running) -> None:
    server.push("not-a-notebook", "this is no JSON")
    assert server.finished("not-a-notebook")["status"] == "ERROR"


def test_a_script_kernel_runs_too(server: Running) -> None:
    server.push("script-kernel", "print('a script')", kernelType="script")
    assert server.finished("script-kernel")["status"] == "COMPLETE"
    assert server.printed("script-kernel") == "a script\n"


def test_a_saved_but_never_run_kernel_has_no_runs(server: Running) -> None:
    server.push("quick-saved", kernelExecutionType="QUICK_SAVE")
    refused = server.post(f"{KERNELS}/GetKernelSessionStatus", {"userName": "ana", "kernelSlug": "quick-saved"})
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == "No runs found for this kernel."


def test_outputs_come_in_pages_that_end(server: Running) -> None:
    server.push("paged-kernel", THREE_FILES)
    server.finished("paged-kernel")
    names, tokens, token = [], set(), ""
    while True:
        found = server.outputs("paged-kernel", pageSize=10, pageToken=token)
        names += [file["fileName"] for file in found["files"]]
        assert ("log" in found) == (token == "")
        token = found["nextPageToken"]
        if not token:
            break
        assert token not in tokens
        tokens.add(token)
    assert len(names) == len(set(names)) == 24 and len(tokens) == 2
    assert (
        server.post(
            f"{KERNELS}/ListKernelFiles", {"userName": "ana", "kernelSlug": "paged-kernel", "pageToken": "%%"}
        ).status_code
        == 400
    )


def test_links_out_of_the_output_folder_are_not_outputs(server: Running, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    source = (
        f"import os\nos.symlink({str(secret)!r}, 'leak.txt'); os.symlink('/etc', 'etc')\n"
        "open('real.txt', 'w').write('r'); os.symlink('real.txt', 'inside.txt')"
    )
    server.push("linking-kernel", notebook(source))
    assert server.finished("linking-kernel")["status"] == "COMPLETE"
    assert [file["fileName"] for file in server.outputs("linking-kernel")["files"]] == ["inside.txt", "real.txt"]


def test_a_child_mounts_the_latest_complete_output_read_only(server: Running) -> None:
    server.push("parent-kernel", notebook("open('adapter.txt', 'w').write('first')"))
    server.finished("parent-kernel")
    server.push("parent-kernel", notebook("open('adapter.txt', 'w').write('second')\nraise SystemError('late')"))
    assert server.finished("parent-kernel")["status"] == "ERROR"
    look = (
        "import os, pathlib, stat\nroot = pathlib.Path(os.environ['KCHAIN_KAGGLE_ROOT'])\n"
        "file = root / 'input/notebooks/ana/parent-kernel/adapter.txt'\n"
        "print(file.read_text(), oct(stat.S_IMODE(file.stat().st_mode)), os.path.exists(root / 'input/parent-kernel'))"
    )
    server.push("child-kernel", notebook(look), kernelDataSources=["ana/parent-kernel"])
    assert server.finished("child-kernel")["status"] == "COMPLETE"
    assert server.printed("child-kernel") == "first 0o444 False\n"


@pytest.mark.parametrize(
    "profile, switches, seen, invalid",
    [
        ("machine", {}, "first", []),
        ("like-kaggle", {}, "nothing", []),
        ("like-kaggle", {"own_output": "mounted"}, "first", []),
        ("machine", {"own_output": "invalid"}, "nothing", ["ana/own-source"]),
    ],
)
def test_a_kernel_that_names_itself_finds_what_the_profile_says(
    start: Callable[..., Running], profile: str, switches: dict[str, str], seen: str, invalid: list[str]
) -> None:
    server = start(profile, **switches)
    look = (
        "import os, pathlib\nroot = pathlib.Path(os.environ['KCHAIN_KAGGLE_ROOT'])\n"
        "file = root / 'input/notebooks/ana/own-source/left.txt'\n"
        "print(file.read_text() if file.exists() else 'nothing')\nopen('left.txt', 'w').write('first')"
    )
    server.push("own-source", notebook(look))
    server.finished("own-source")
    answer = server.push("own-source", notebook(look), kernelDataSources=["ana/own-source"])
    assert answer["invalidKernelSources"] == invalid
    assert server.finished("own-source")["status"] == "COMPLETE"
    assert server.printed("own-source").strip() == seen


def test_both_mount_layouts_hold_the_same_files(start: Callable[..., Running]) -> None:
    look = (
        "import os, pathlib\ninput = pathlib.Path(os.environ['KCHAIN_KAGGLE_ROOT'], 'input')\n"
        "print([(input / p / 'a.txt').exists() for p in ('notebooks/ana/parent-kernel', 'parent-kernel')])"
    )
    for layout, seen in (("both", "[True, True]"), ("old", "[False, True]")):
        server = start("like-kaggle", mounts=layout)
        server.push("parent-kernel", notebook("open('a.txt', 'w').write('a')"))
        server.finished("parent-kernel")
        server.push("child-kernel", notebook(look), kernelDataSources=["ana/parent-kernel"])
        server.finished("child-kernel")
        assert server.printed("child-kernel").strip() == seen


def test_what_a_session_leaves_running_ends_with_it(server: Running, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    daemon = (
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))"
    )
    server.push("daemon-kernel", notebook(daemon))
    assert server.finished("daemon-kernel")["status"] == "COMPLETE"
    until("the daemon's end", lambda: not alive(int(pid_file.read_text())))


def test_a_kernel_process_that_is_killed_makes_the_session_an_error(server: Running) -> None:
    server.push("killed-kernel", notebook("import os\nprint('here', flush=True)\nos.kill(os.getpid(), 9)"))
    ended = server.finished("killed-kernel")
    assert ended["status"] == "ERROR" and ended["failureMessage"]


def test_cancel_ends_a_running_session_of_its_starter_only(server: Running) -> None:
    server.push("cancelled-kernel", notebook("open('part.txt', 'w').write('p')\nimport time\ntime.sleep(600)"))
    server.reaches("cancelled-kernel", "RUNNING")
    folder = max((server.root / "sessions").iterdir(), key=lambda path: int(path.name))
    until("the output", lambda: (folder / "kaggle/working/part.txt").exists())
    session = {"kernelSessionId": int(folder.name)}
    assert server.post(f"{KERNELS}/CancelKernelSession", session, user="bob").status_code == 403
    server.rpc(f"{KERNELS}/CancelKernelSession", session)
    assert server.finished("cancelled-kernel")["status"] == "CANCEL_ACKNOWLEDGED"
    assert [file["fileName"] for file in server.outputs("cancelled-kernel")["files"]] == ["part.txt"]


def test_credentials_of_the_servers_starter_do_not_reach_a_notebook(start: Callable[..., Running], monkeypatch) -> None:
    monkeypatch.setenv("KAGGLE_KEY", "not-for-notebooks")
    server = start("machine")
    server.push("nosy-kernel", notebook("import os\nprint([k for k in os.environ if k.startswith('KAGGLE')])"))
    server.finished("nosy-kernel")
    assert server.printed("nosy-kernel") == "[]\n"


def test_a_deleted_running_kernel_stops_running(server: Running) -> None:
    server.push("doomed-kernel", notebook("import time\ntime.sleep(600)"))
    server.reaches("doomed-kernel", "RUNNING")
    folder = max((server.root / "sessions").iterdir(), key=lambda path: int(path.name))
    server.rpc(f"{KERNELS}/DeleteKernel", {"userName": "ana", "kernelSlug": "doomed-kernel"})
    until("the end of its processes and files", lambda: not folder.exists())
    assert not runner.of_session(folder, runner=True)


def test_the_served_profile_ends_in_good_order_on_sigterm(start: Callable[..., Running]) -> None:
    server = start("machine")
    server.push("interrupted-kernel", notebook("import time\ntime.sleep(600)"))
    server.reaches("interrupted-kernel", "RUNNING")
    os.kill(server.endpoint.pid, signal.SIGTERM)
    until("the server's end", lambda: not (server.root / "server.json").exists())
    server.restart()
    assert server.finished("interrupted-kernel") == {
        "status": "ERROR",
        "failureMessage": "The server ended while this session ran.",
    }
