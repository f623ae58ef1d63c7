"""Which files of an inbox are taken, and which wait."""

from __future__ import annotations

import gzip
import itertools
import os
import time
from pathlib import Path

import pytest

from kchain.inbox.arrivals import GIVEN_UP, Arrivals, unfinished

ROW = b'{"prompt": "p", "completion": "c"}'
STILL = 2.0


class Clock:
    """What the inbox takes for the time; only a test moves it."""

    now = 1000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kchain.inbox.arrivals.time.monotonic", lambda: Clock.now)


@pytest.mark.parametrize(
    "content, missing",
    [
        (ROW + b"\n", ""),
        (ROW, ""),
        (ROW + b"\r\n", ""),
        (ROW + b"\n\n\n", ""),
        (ROW + b"\n" + ROW[:-5], "its last line is cut"),
        (ROW + b"\n" + b"\0" * 500, "its last line is cut"),
        (b"", "it is empty"),
        (b"\xef\xbb\xbf" + ROW + b"\n", ""),
        (b'{"prompt": "' + b"x" * 300_000 + b'"}', ""),
        (b'{"prompt": "' + b"x" * 300_000, "its last line is cut"),
        (gzip.compress(ROW * 50), ""),
        (gzip.compress(os.urandom(5000))[:-9], "its gzip ends in the middle"),
        (b"PK\x03\x04 whatever", ""),
    ],
    ids=itertools.count(),
)
def test_a_file_is_whole_when_its_last_line_is(tmp_path: Path, content: bytes, missing: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    assert unfinished(path) == missing


class Watched:
    """A folder that is watched, with what was told of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[tuple[str, str]] = []
        self.arrivals = Arrivals(folder, STILL, lambda name, text: self.told.append((name, text)))

    def settled(self) -> list[str]:
        self.arrivals.look()
        Clock.now += 1.5 * STILL
        return self.arrivals.look()


def test_whole_files_come_the_oldest_first(tmp_path: Path) -> None:
    for age, name in enumerate(["c.jsonl", "-a b.jsonl", "ü.JSONL"]):
        (tmp_path / name).write_bytes(ROW)
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    assert Watched(tmp_path).settled() == ["ü.JSONL", "-a b.jsonl", "c.jsonl"]


def test_what_is_no_file_of_the_user_is_left_alone_and_told_once(tmp_path: Path) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "link.jsonl").symlink_to("/etc/hostname")
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    (tmp_path / ".x.jsonl.Ab3d").write_bytes(ROW)
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "two\nlines.jsonl").write_bytes(ROW)
    watched = Watched(tmp_path)
    assert watched.settled() == []
    assert watched.arrivals.look() == []
    assert sorted(name for name, _ in watched.told) == [
        "'two\\nlines.jsonl'", "folder.jsonl", "link.jsonl", "pipe.jsonl", "table.csv",
    ]  # fmt: skip


def test_a_growing_file_is_not_taken_until_it_rests(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    with (tmp_path / "x.jsonl").open("wb") as file:
        for _ in range(8):
            # Whole lines, so that nothing but the growth speaks against it.
            file.write(ROW + b"\n")
            file.flush()
            assert watched.arrivals.look() == []
            assert watched.arrivals.restless() == ["x.jsonl"]
            Clock.now += 0.9 * STILL
    assert watched.settled() == ["x.jsonl"]


def test_a_cut_file_waits_and_is_given_up_in_the_end(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_bytes(ROW[:-3])
    watched = Watched(tmp_path)
    assert watched.settled() == []
    assert "its last line is cut" in watched.told[0][1]
    long_ago = time.time() - GIVEN_UP - 1
    os.utime(tmp_path / "x.jsonl", (long_ago, long_ago))
    assert watched.settled() == ["x.jsonl"]


def test_a_file_that_is_deleted_or_replaced_while_it_waits_is_no_matter(tmp_path: Path) -> None:
    path, watched = tmp_path / "x.jsonl", Watched(tmp_path)
    path.write_bytes(ROW)
    assert watched.arrivals.look() == []
    path.unlink()
    assert watched.settled() == []
    path.write_bytes(ROW)
    assert watched.arrivals.look() == [], "another file begins to wait anew"
    assert watched.settled() == ["x.jsonl"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_waits_until_it_may(tmp_path: Path) -> None:
    path, watched = tmp_path / "x.jsonl", Watched(tmp_path)
    path.write_bytes(ROW)
    path.chmod(0)
    assert watched.settled() == []
    assert "Permission denied" in watched.told[0][1]
    path.chmod(0o600)
    assert watched.settled() == ["x.jsonl"]
