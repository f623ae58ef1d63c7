"""Files that move between the folders of an inbox: nothing is overwritten, nothing is lost, twice is like once."""

from __future__ import annotations

from pathlib import Path

import pytest

from kchain.inbox.box import Box, land, put
from kchain.runtime.files import hash_file


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box(tmp_path / "box")
    made.prepare()
    return made


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_another_file_of_the_same_name_gets_its_hash_into_the_name(box: Box, tmp_path: Path) -> None:
    for text in ("one", "two", "one", "two"):
        source = write(tmp_path / "source", text)
        put(source, box.archive, "x.jsonl", hash_file(source))
    hashed = f"x-{hash_file(write(tmp_path / 'source', 'two'))[:10]}.jsonl"
    assert names(box.archive) == sorted(["x.jsonl", hashed])
    assert {path.read_text() for path in box.archive.iterdir()} == {"one", "two"}


def test_a_name_as_long_as_names_can_be_finds_its_place(box: Box, tmp_path: Path) -> None:
    name = "é" * 124 + ".jsonl"
    source = write(tmp_path / name, "one")
    first = put(source, box.archive, name, hash_file(source))
    assert first.name.endswith("é.jsonl")
    assert first.read_text() == "one"


def test_what_was_written_anew_meanwhile_stays_in_the_inbox(box: Box) -> None:
    taken = hash_file(write(box.inbox / "x.jsonl", "one"))
    write(box.inbox / "x.jsonl", "two")
    box.withdraw("x.jsonl", taken)
    assert (box.inbox / "x.jsonl").read_text() == "two"
    box.withdraw("x.jsonl", hash_file(box.inbox / "x.jsonl"))
    assert names(box.inbox) == []
    box.withdraw("x.jsonl", taken)


def test_a_withdrawal_that_was_cut_short_is_taken_back(box: Box) -> None:
    leaving = box.inbox / ".kchain-leaving"
    leaving.mkdir()
    write(leaving / "x.jsonl", "one")
    write(box.inbox / "x.jsonl", "two")
    box.restore()
    assert {path.read_text() for path in box.inbox.iterdir()} == {"one", "two"}


def test_an_adapter_lands_once_and_another_of_the_same_file_beside_it(box: Box, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    files = [write(tmp_path / "run" / "adapter_model.safetensors", "weights"), write(tmp_path / "run" / "r.json", "{}")]
    first = land(files, box.adapters, "x", "0123456789abcdef", 1)
    assert first.name == "x-0123456789"
    assert names(first) == ["adapter_model.safetensors", "r.json"]
    assert land(files, box.adapters, "other name", "0123456789abcdef", 1) == first
    write(files[0], "other weights")
    assert land(files, box.adapters, "x", "0123456789abcdef", 2).name == "x-0123456789-v2"
    write(files[0], "those of another phase")
    assert land(files, box.adapters, "x", "0123456789abcdef", 2).name == "x-0123456789-v2-2"
    assert names(box.adapters) == ["x-0123456789", "x-0123456789-v2", "x-0123456789-v2-2"]


def test_folders_that_cannot_be_written_to_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    write(tmp_path / "archive", "a file stands in its way")
    with pytest.raises(OSError, match="archive"):
        Box(tmp_path).prepare()
