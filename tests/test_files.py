"""Durable writing: bytes reach the disk before their name does, and the name before anybody is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kchain import files
from kchain.runtime import files as runtime_files


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """("sync", name) of every file or folder that was waited for, ("name", name) of every rename, in order."""
    found: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def sync(descriptor: int) -> None:
        found.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    def rename(self: Path, target: Any) -> Path:
        found.append(("name", Path(target).name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", rename)
    return found


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at /proc")
def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_lasts(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    files.write(tmp_path / "a.txt", "text")
    (first, partial), *rest = calls
    assert first == "sync" and partial.startswith(".a.txt.")
    assert rest == [("name", "a.txt"), ("sync", tmp_path.name)]
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at /proc")
def test_what_was_finished_elsewhere_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    (tmp_path / "b.partial").write_bytes(b"bytes")
    files.put_in_place(tmp_path / "b.partial", tmp_path / "b")
    assert calls == [("sync", "b.partial"), ("name", "b"), ("sync", tmp_path.name)]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="looks at /proc")
def test_a_folder_of_a_notebook_gets_its_name_when_all_its_files_are_on_the_disk(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    partial = runtime_files.begin_folder(tmp_path / "adapter")
    for name in ("one", "two"):
        (partial / name).write_text(name)
    runtime_files.finish_folder(partial, tmp_path / "adapter")
    assert sorted(calls[:2]) == [("sync", "one"), ("sync", "two")]
    assert calls[2:] == [("name", "adapter")]


def test_what_could_not_be_written_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(tmp_path / "a.txt", "old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write(tmp_path / "a.txt", "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.txt": "old"}
