"""`kchain inbox` as a user runs it: real command, server, client and sessions; the notebooks train nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import drive_quick
import pytest
from drive_project import OWNER, Project
from slugify import slugify

from kchain.inbox.examples import title_of
from kchain.runtime.files import hash_file
from kchain.server import launch

WORDS = ("inbox", "box", "--phase", "one", "--settle", "0.5")


def rows(word: str, count: int = 20) -> str:
    return "".join(json.dumps({"p": f"{word} {n}", "c": f"The {word} is number {n}."}) + "\n" for n in range(count))


class Boxed:
    """A project with an inbox, its phase reviewed."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.project = Project(root, **options)
        self.box = root / "box"
        (self.box / "inbox").mkdir(parents=True)
        code, out, error = self.project.run("review", "one")
        assert code == 0, out + error

    def drop(self, name: str, text: str) -> Path:
        (self.box / "inbox" / name).write_text(text, encoding="utf-8")
        return self.box / "inbox" / name

    def once(self) -> tuple[int, list[dict[str, Any]], str]:
        code, out, error = self.project.run(*WORDS, "--once", "--json")
        assert "Traceback" not in error, error
        return code, [json.loads(line) for line in out.splitlines()], error

    def names(self, folder: str) -> list[str]:
        return sorted(path.name for path in (self.box / folder).iterdir())

    def versions(self) -> list[int]:
        """Versions of the kernel of every file that has an adapter."""
        hashes = {hash_file(path) for path in (self.box / "archive").iterdir()}
        titles = [title_of("Quick phase one", "one", sha256) for sha256 in hashes]
        kernels = [self.project.client.kernel(f"{OWNER}/{slugify(title)}") for title in titles]
        return [kernel.version if kernel is not None else 0 for kernel in kernels]

    def close(self) -> None:
        launch.stop(self.project.target.local_root)


@pytest.fixture(scope="module")
def boxed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boxed]:
    made = Boxed(tmp_path_factory.mktemp("inbox") / "project")
    yield made
    made.close()


def test_a_mixed_heap_of_files_finds_its_places(boxed: Boxed) -> None:
    boxed.drop("a b [red].jsonl", rows("a b [red].jsonl").replace("\n", "\n\n", 1))
    boxed.drop("-ü.jsonl", rows("-ü.jsonl").replace("-ü", "-ü\u2028"))
    boxed.drop("twice.jsonl", rows("-ü.jsonl").replace("-ü", "-ü\u2028"))
    boxed.drop("broken.jsonl", '{"p": \n' * 5 + rows("x", 3))
    boxed.drop("other.jsonl", '{"title": "t"}\n')
    boxed.drop("zip.jsonl", "PK\x03\x04 and so on")
    boxed.drop("cut.jsonl", '{"p": "a", "c"')
    boxed.drop("empty.jsonl", "")
    (boxed.box / "inbox" / "folder.jsonl").mkdir()
    for age, name in enumerate(["twice.jsonl", "-ü.jsonl", "a b [red].jsonl"]):
        os.utime(boxed.box / "inbox" / name, (10_000 - age, 10_000 - age))
    code, done, error = boxed.once()
    assert code == 1
    told = {line["file"]: line["outcome"] for line in done}
    assert list(told)[:3] == ["a b [red].jsonl", "-ü.jsonl", "twice.jsonl"], "the oldest comes first"
    assert told == {
        "a b [red].jsonl": "trained", "-ü.jsonl": "trained", "twice.jsonl": "already trained",
        "broken.jsonl": "rejected", "other.jsonl": "rejected", "zip.jsonl": "rejected",
    }  # fmt: skip
    assert boxed.names("inbox") == ["cut.jsonl", "empty.jsonl", "folder.jsonl"]
    assert boxed.names("archive") == ["-ü.jsonl", "a b [red].jsonl", "twice.jsonl"]
    assert [name[:-10] for name in boxed.names("adapters")] == ["-ü-", "a b [red]-"]
    assert "line 1: " in (boxed.box / "rejected" / "broken.jsonl.reason.txt").read_text()
    assert "a zip archive" in (boxed.box / "rejected" / "zip.jsonl.reason.txt").read_text()
    for words in ("cut.jsonl  its last line is cut", "empty.jsonl  it is empty", "folder.jsonl  is not a file"):
        assert words in error
    landed = boxed.box / "adapters" / boxed.names("adapters")[0]
    assert json.loads((landed / "kchain-result.json").read_text())["phase"] == f"one-inbox-{landed.name[-10:]}"
    assert boxed.versions() == [1, 1]
    assert boxed.project.versions() == [0, 0], "the phase itself was not pushed"
    for name in boxed.names("inbox"):
        shutil.move(boxed.box / "inbox" / name, boxed.box / name)


def test_a_large_file_travels_as_a_private_data_set(boxed: Boxed) -> None:
    boxed.drop("large.jsonl", rows("large", 6000))
    code, done, error = boxed.once()
    assert (code, done[0]["outcome"]) == (0, "trained"), error
    ref = f"{OWNER}/quick-inbox-{done[0]['sha256'][:8]}"
    assert boxed.project.client.dataset_status(ref) == "READY"
    (file,) = boxed.project.client.dataset_files(ref)
    assert (file.name, file.bytes) == (f"{done[0]['sha256'][:10]}.jsonl", len(rows("large", 6000)))


def test_a_copy_that_grows_while_the_inbox_runs_is_taken_when_it_is_whole(boxed: Boxed) -> None:
    whole = rows("slow", 50)
    inbox = boxed.project.start(*WORDS)

    def copy() -> None:
        with (boxed.box / "inbox" / "slow.jsonl").open("w") as file:
            for at in range(0, len(whole), 400):
                file.write(whole[at : at + 400])
                file.flush()
                time.sleep(0.2)

    try:
        writer = threading.Thread(target=copy)
        writer.start()
        writer.join()
        wait_for(lambda: "slow.jsonl" in boxed.names("archive"), inbox)
    finally:
        os.killpg(inbox.pid, signal.SIGINT)
        out, error = inbox.communicate(timeout=300)
    assert inbox.returncode == 130, out + error
    assert (boxed.box / "archive" / "slow.jsonl").read_text() == whole
    assert out.count("slow.jsonl  pushed version") == 1
    assert "rejected" not in out


def test_a_gate_that_is_loosened_is_asked_again_of_the_same_run(boxed: Boxed) -> None:
    drive_quick.write_phase(boxed.project.root, "half", None, "partial")
    assert boxed.project.run("review", "half")[0] == 0
    words = ("inbox", "box", "--phase", "half", "--settle", "0.1", "--once")
    boxed.drop("half.jsonl", rows("half"))
    code, out, error = boxed.project.run(*words)
    assert (code, "all epochs" in out) == (1, True), out + error
    reason = (boxed.box / "rejected" / "half.jsonl.reason.txt").read_text()
    assert "changed gates are then applied to the same run" in reason
    assert "kchain watch" not in reason
    with (boxed.project.root / "phases" / "half.toml").open("a") as file:
        file.write("[gates]\nall_epochs = false\n")
    shutil.move(boxed.box / "rejected" / "half.jsonl", boxed.box / "inbox")
    code, out, error = boxed.project.run(*words)
    assert (code, "pushed version" in out) == (0, False), out + error
    assert "half.jsonl" in boxed.names("archive")


def test_what_an_inbox_cannot_do_is_said_in_a_sentence(boxed: Boxed) -> None:
    for words, code, part in (
        (("inbox", "box", "--phase", "nine", "--once"), 2, "there is no phase 'nine'"),
        (("inbox", "box", "--phase", "two", "--once"), 3, "kchain review two"),
        (("inbox", "kchain.toml", "--phase", "one", "--once"), 2, "is a file"),
        (("inbox", "box", "--once"), 2, "--phase"),
    ):
        found, out, error = boxed.project.run(*words)
        assert (found, part in error) == (code, True), out + error
        assert "Traceback" not in error


def test_a_target_that_is_not_there_is_exit_code_four_and_the_file_stays(
    boxed: Boxed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("x" * 40)
    monkeypatch.setenv("KCHAIN_KEY_FILE", str(tmp_path / "key"))
    target = ("--target", "http://127.0.0.1:9")
    assert boxed.project.run("review", "one", *target)[0] == 0
    (tmp_path / "box" / "inbox").mkdir(parents=True)
    dropped = tmp_path / "box" / "inbox" / "x.jsonl"
    dropped.write_text(rows("far"))
    words = ("inbox", str(tmp_path / "box"), "--phase", "one", "--settle", "0.1", "--once")
    code, out, error = boxed.project.run(*words, *target)
    assert code == 4, out + error
    assert dropped.exists()


def wait_for(true: Any, process: subprocess.Popen[str], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.2)


@pytest.mark.long
def test_kills_at_random_moments_lose_no_file_and_push_none_twice(tmp_path: Path) -> None:
    boxed, chance = Boxed(tmp_path / "project"), random.Random(7)
    try:
        for number in range(5):
            boxed.drop(f"{number}.jsonl", rows(f"word {number}", 20 if number else 6000))
        (boxed.box / "inbox" / "bad.jsonl").write_text('{"title": 1}\n')
        kills = 0
        while boxed.names("inbox") and kills < 200:
            inbox = boxed.project.start(*WORDS, "--once")
            time.sleep(chance.uniform(0.5, 4.0))
            kills += inbox.poll() is None
            inbox.kill()
            inbox.communicate()
        last = boxed.project.run(*WORDS, "--once")
        assert last[0] in (0, 1), last
        assert kills >= 3, "a machine so fast needs more files"
        assert boxed.names("archive") == [f"{number}.jsonl" for number in range(5)]
        assert boxed.names("rejected") == ["bad.jsonl", "bad.jsonl.reason.txt"]
        assert boxed.versions() == [1] * 5
        assert [path.name for path in (boxed.box / ".kchain-inbox").iterdir()] == ["lock"]
    finally:
        boxed.close()
