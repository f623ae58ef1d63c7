"""Collected interactions become examples: the counts of the field's set, stable, and nothing lost without a reason."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from kchain.data import Preparation, prepare
from kchain.data.prepare import PARTS, read_prompts
from kchain.errors import InputError

ROLES = ("analyst", "code_reviewer", "writer")


def record(number: int, **execution: Any) -> dict[str, Any]:
    return {
        "task": {"description": f"Do task {number}"},
        "agent": {"role": ROLES[number % 3]},
        "execution": {"output": f"Result {number}", "success": True, **execution},
    }


def write(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records) if path.suffix == ".json" else "".join(json.dumps(r) + "\n" for r in records))
    return path


def part(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def test_298_interactions_give_238_29_and_31(tmp_path: Path) -> None:
    found = prepare(write(tmp_path / "in.json", [record(n) for n in range(298)]), tmp_path / "out", Preparation())
    assert found.metadata["examples"] == {"train": 238, "validation": 29, "test": 31, "total": 298}
    assert [len(part(tmp_path / "out", name)) for name in PARTS] == [238, 29, 31]
    asked = {one["messages"][1]["content"] for name in PARTS for one in part(tmp_path / "out", name)}
    assert len(asked) == 298
    first = part(tmp_path / "out", "train")[0]["messages"]
    assert [turn["role"] for turn in first] == ["system", "user", "assistant"]
    assert not (tmp_path / "out" / "rejected.jsonl").exists()


@pytest.mark.parametrize(
    ("count", "validation", "test", "sizes"),
    [(10, 0.1, 0.1, [8, 1, 1]), (1, 0.1, 0.1, [0, 0, 1]), (9, 0.1, 0.0, [9, 0, 0]), (100, 0.2, 0.0, [80, 20, 0])],
)
def test_the_shares_are_exact(tmp_path: Path, count: int, validation: float, test: float, sizes: list[int]) -> None:
    source = write(tmp_path / "in.jsonl", [record(n) for n in range(count)])
    found = prepare(source, tmp_path / "out", Preparation(validation=validation, test=test))
    assert [len(found.parts[name]) for name in PARTS] == sizes


def test_the_order_of_the_records_changes_nothing_and_the_seed_does(tmp_path: Path) -> None:
    records = [record(n) for n in range(60)]
    one = prepare(write(tmp_path / "a.jsonl", records), tmp_path / "one", Preparation())
    two = prepare(write(tmp_path / "b.json", records[::-1]), tmp_path / "two", Preparation())
    other = prepare(tmp_path / "a.jsonl", tmp_path / "other", Preparation(seed=1))
    assert one.metadata["sha256"] == two.metadata["sha256"] != other.metadata["sha256"]


def test_a_folder_of_files_with_one_record_each_is_read(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / "in" / "deep" / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record(number), indent=2))
    write(tmp_path / "in" / "more.jsonl", [record(n) for n in range(5, 8)])
    assert prepare(tmp_path / "in", tmp_path / "out", Preparation()).metadata["examples"]["total"] == 8


def test_what_is_left_out_is_kept_aside_with_its_reason(tmp_path: Path) -> None:
    records = [
        *(record(n) for n in range(4)),
        record(4, success=False),
        record(5, success="failed"),
        record(6, output="  "),
        {"agent": {"role": "writer"}, "execution": {"output": "x"}},
        record(1),
    ]
    source = write(tmp_path / "in.jsonl", records)
    with source.open("a") as file:
        file.write('{"half\n')
    metadata = prepare(source, tmp_path / "out", Preparation()).metadata
    aside = part(tmp_path / "out", "rejected")
    assert [row["line"] for row in aside] == [5, 6, 7, 8, 9, 10]
    assert [row["reason"] for row in aside[:5]] == [
        "the execution failed",
        "the execution failed",
        "execution.output is empty or missing",
        "task.description is empty or missing",
        "a duplicate",
    ]
    assert json.loads(aside[0]["row"])["execution"]["success"] is False
    assert metadata["records"] == 10 == metadata["examples"]["total"] + metadata["rejected"]["total"]
    assert metadata["rejected"]["reasons"]["the execution failed"] == 2


def test_each_role_gets_its_own_system_prompt(tmp_path: Path) -> None:
    (tmp_path / "roles.toml").write_text('analyst = "You analyse."\n')
    settings = Preparation(prompts=read_prompts(tmp_path / "roles.toml"))
    source = write(tmp_path / "in.jsonl", [*(record(n) for n in range(30)), {**record(99), "agent": {}}])
    metadata = prepare(source, tmp_path / "out", settings).metadata
    prompts = {role: told["system_prompt"] for role, told in metadata["roles"].items()}
    assert prompts == {
        "": "You are a helpful assistant.",
        "analyst": "You analyse.",
        "code_reviewer": "You are a code reviewer. Do the task you are given and answer with its result.",
        "writer": "You are a writer. Do the task you are given and answer with its result.",
    }
    for example in part(tmp_path / "out", "train"):
        system, user, _ = (turn["content"] for turn in example["messages"])
        if user != "Do task 99":
            assert system == prompts[ROLES[int(user.split()[-1]) % 3]]


def test_other_paths_and_alternatives_are_searched(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"q": {"text": "a"}, "out": "b"}, {"q": {"text": "c"}, "answer": {"d": 1}}])
    settings = Preparation(task=("q.text",), answer=("out", "answer"))
    found = prepare(source, tmp_path / "out", settings)
    told = {one["messages"][2]["content"] for examples in found.parts.values() for one in examples}
    assert told == {"b", '{"d": 1}'}


def test_metadata_tells_the_hash_of_every_file(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(n) for n in range(20)])
    metadata = prepare(source, tmp_path / "out", Preparation()).metadata
    assert json.loads((tmp_path / "out" / "metadata.json").read_text()) == json.loads(json.dumps(metadata))
    assert metadata["source"] == {"in.jsonl": hashlib.sha256(source.read_bytes()).hexdigest()}
    for name, digest in metadata["sha256"].items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest


def test_what_is_there_is_not_overwritten_unless_asked_for(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [record(0), record(1), {}])
    prepare(source, tmp_path / "out", Preparation())
    with pytest.raises(InputError, match=r"has train\.jsonl, .*rejected\.jsonl already"):
        prepare(source, tmp_path / "out", Preparation())
    prepare(write(source, [record(0), record(1)]), tmp_path / "out", Preparation(), replace=True)
    assert not (tmp_path / "out" / "rejected.jsonl").exists(), "nothing of the earlier run is left"


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "no record"), ('{"a": 1}\n', "1 x task.description is empty or missing"), ("[1, 2", "Expecting|ends")],
)
def test_input_of_no_use_is_told_and_nothing_is_written(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "in.json").write_text(content)
    with pytest.raises(InputError, match=reason):
        prepare(tmp_path / "in.json", tmp_path / "out", Preparation())
    assert not (tmp_path / "out").exists()


def test_a_table_of_prompts_that_is_none_is_refused(tmp_path: Path) -> None:
    for name, content in (("a.toml", "x = 1"), ("a.json", "[1]"), ("b.toml", "x = "), ("b.json", "{")):
        (tmp_path / name).write_text(content)
        with pytest.raises(InputError, match=name):
            read_prompts(tmp_path / name)
