"""`kchain serve`, as somebody at a terminal uses it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from server_tools import KAGGLE, until

from kchain.errors import InputError
from kchain.server.publish import publish_dataset, publish_model

SERVE = [sys.executable, "-m", "kchain", "serve"]


def serve(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*SERVE, *options], cwd=folder, capture_output=True, text=True, timeout=300)


def test_what_it_prints_points_the_kaggle_command_at_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("a", encoding="utf-8")
    options = (
        "--port",
        "0",
        "--profile",
        "like-kaggle",
        "--key-file",
        "my 'own'.key",
        "--publish-dataset",
        "bob/some-data=data",
    )
    log = tmp_path / "said"
    with log.open("w") as said:
        server = subprocess.Popen([*SERVE, *options], cwd=tmp_path, stdout=said, stderr=said, env=_unbuffered())
    try:
        until("the instructions", lambda: "KCHAIN_KEY_FILE" in log.read_text())
        until("the last line", lambda: "--target" in log.read_text())
        lines = [line for line in log.read_text().splitlines() if line.startswith("  ")]
        assert stat.S_IMODE((tmp_path / "my 'own'.key").stat().st_mode) == 0o600
        own = f"kchain() {{ '{sys.executable}' -m kchain \"$@\"; }}"
        script = "\n".join([own, *lines, f"'{KAGGLE}' datasets files bob/some-data", f"'{KAGGLE}' quota"])
        # Kaggle's client would take a token it finds here before any user name and key, and then be refused.
        (tmp_path / ".kaggle").mkdir()
        (tmp_path / ".kaggle" / "access_token").write_text("KGAT_of_kaggle_itself", encoding="utf-8")
        environment = {**_unbuffered(), "HOME": str(tmp_path), "NO_PROXY": "*"}
        done = subprocess.run(["bash", "-ec", script], env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and "a.txt" in done.stdout and "30.00h" in done.stdout, done.stdout + done.stderr
        again = serve(tmp_path, "--port", "0")
        assert again.returncode == 3 and "kchain serve --stop" in again.stderr
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=300) == 0
    assert "No server is running" in serve(tmp_path, "--stop").stdout


def _unbuffered() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def test_stop_ends_a_server_that_was_started_elsewhere(tmp_path: Path) -> None:
    with (tmp_path / "said").open("w") as said:
        server = subprocess.Popen([*SERVE, "--port", "0"], cwd=tmp_path, stdout=said, stderr=said)
    until("the server", lambda: (tmp_path / ".kchain" / "local" / "server.json").exists())
    assert "has ended" in serve(tmp_path, "--stop").stdout
    assert server.wait(timeout=300) == 0


def test_the_default_root_is_the_projects(tmp_path: Path) -> None:
    (tmp_path / "kchain.toml").write_text("", encoding="utf-8")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "data").mkdir()
    done = serve(tmp_path / "deep", "--publish-only", "--publish-dataset", "bob/some-data=data")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".kchain" / "local" / "datasets" / "bob" / "some-data" / "1").is_dir()


@pytest.mark.parametrize(
    "options, said",
    [
        (["--publish-dataset", "bob/some-data"], "NAME=DIR"),
        (["--publish-dataset", "nobody=data"], "owner/slug"),
        (["--publish-dataset", "bob/some-data=nowhere"], "no folder nowhere"),
        (["--publish-model", "a/b/c/d/latest=data"], "the version is not a number"),
        (["--publish-model", "a/b/c=data"], "owner/model/framework/variation/version"),
        (["--publish-model", "a/../c/d/1=data"], "owner/model/framework/variation/version"),
        (["--port", "99999"], "--port"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_exit_2(tmp_path: Path, options: list[str], said: str) -> None:
    (tmp_path / "data").mkdir()
    done = serve(tmp_path, "--publish-only", *options)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_taken_port_and_an_empty_key_file_are_named(tmp_path: Path) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve(tmp_path, "--port", str(port))
    assert done.returncode == 2 and f"port {port}" in done.stderr
    (tmp_path / "empty.key").touch()
    done = serve(tmp_path, "--port", "0", "--key-file", "empty.key")
    assert done.returncode == 2 and "empty.key is empty" in done.stderr


def test_a_model_version_never_changes_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "a").write_text("1", encoding="utf-8")
    publish_model(tmp_path / "root", "a/b/c/d/1", folder)
    publish_model(tmp_path / "root", "a/b/c/d/1", folder)
    (folder / "a").write_text("2", encoding="utf-8")
    with pytest.raises(InputError, match="already"):
        publish_model(tmp_path / "root", "a/b/c/d/1", folder)
    assert (tmp_path / "root/models/a/b/c/d/1/a").read_text(encoding="utf-8") == "1"


def test_publishing_copies_and_leaves_the_original_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    (tmp_path / "a.txt").chmod(0o644)
    publish_dataset(tmp_path / "server" / "root", "bob/some-data", tmp_path)
    stored = tmp_path / "server/root/datasets/bob/some-data/1/a.txt"
    assert not stored.samefile(tmp_path / "a.txt")
    assert stat.S_IMODE(stored.stat().st_mode) == 0o444 and stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


def test_the_doors_import_no_web_server_and_no_notebooks() -> None:
    heavy = ("starlette", "uvicorn", "papermill", "psutil", "requests", "kagglesdk")
    code = f"import sys, kchain.server.launch, kchain.server.publish; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "[]\n", done.stderr
