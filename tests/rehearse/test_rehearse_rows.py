"""Invented rows have the columns that a source maps, and its conditions let them through."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from kchain.errors import InputError
from kchain.phases import Condition, Source, load_chain
from kchain.phases.init import make_project
from kchain.rehearse.rows import SPARE, invent, publish, stand_ins
from kchain.rehearse.settings import share_of
from kchain.runtime import readers
from kchain.runtime.lots import condition
from kchain.server.publish import dataset_folder

PAIR = {"prompt": "q", "completion": "a"}


def source(fields: dict[str, str] = PAIR, *tests: dict[str, Any]) -> Source:
    return Source(name="s", dataset="a/b", fields=fields, where=tuple(Condition(**test) for test in tests))


def rows(made: Source, recipe: str = "prompt_completion", count: int = 30) -> list[dict[str, Any]]:
    return invent(made, recipe, "You are a helpful assistant.", count)


def test_a_question_and_its_answer_stay_together_and_none_comes_twice() -> None:
    found = rows(source())
    assert len({row["q"] for row in found}) == len(found) == 30
    assert all(set(row) == {"q", "a"} and row["q"] and row["a"] for row in found)


def test_dots_reach_into_objects() -> None:
    row = rows(source({"prompt": "task.description", "completion": "execution.output"}))[0]
    assert set(row) == {"task", "execution"} and set(row["task"]) == {"description"}


def test_a_column_below_a_column_that_is_a_text_is_one_of_its_own() -> None:
    row = rows(source({"prompt": "a", "completion": "a.b"}))[0]
    assert isinstance(row["a"], str) and row["a.b"]


def test_conversations_and_texts_are_invented_too() -> None:
    turns = rows(source({"messages": "talk"}), "conversation")[0]["talk"]
    assert [turn["role"] for turn in turns][:2] == ["user", "assistant"]
    assert rows(source({"text": "body"}), "text")[0]["body"]


@pytest.mark.parametrize(
    "tests",
    [
        [{"column": "kind", "equals": "shell"}],
        [{"column": "kind", "equals": 3}],
        [{"column": "kind", "equals": True}],
        [{"column": "kind", "any_of": ("x", "y")}],
        [{"column": "kind", "equals": "shell", "negate": True}],
        [{"column": "q", "contains": ("bash", "linux")}],
        [{"column": "q", "contains": ("bash",)}, {"column": "q", "contains": ("linux",)}],
        [{"column": "q", "contains": ("function",), "negate": True}],
        [{"column": "q", "matches": r"(?:ba|z)sh script"}],
        [{"column": "q", "matches": r"^ls -la$"}],
        [{"column": "kind", "matches": r"\bv\d\.\d"}],
        [{"column": "q", "min_words": 60}],
        [{"column": "a", "max_words": 1}, {"column": "q", "min_characters": 200}],
        [{"column": ("q", "kind"), "contains": ("bash",)}],
        [{"column": "meta.kind", "equals": "shell"}, {"column": "meta.score", "any_of": (4, 5)}],
    ],
    ids=str,
)
def test_conditions_let_invented_rows_through(tests: list[dict[str, Any]]) -> None:
    made = source(PAIR, *tests)
    holds = [condition(test.model_dump()) for test in made.where]
    assert all(hold(row) for row in rows(made) for hold in holds)


def test_a_word_is_put_into_a_conversation() -> None:
    row = rows(source({"messages": "m"}, {"column": "m", "contains": ("kubernetes",)}), "conversation")[0]
    assert "kubernetes" in row["m"][0]["content"] and row["m"][1]["role"] == "assistant"


@pytest.mark.parametrize(
    "tests",
    [
        [{"column": "q", "matches": r"^(?=.*\d{7})[A-Z]{3}$"}],
        [{"column": "q", "equals": "x"}, {"column": "q", "equals": "y"}],
    ],
    ids=["pattern", "contradiction"],
)
def test_a_condition_that_nothing_can_be_thought_of_for_is_named(tests: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="kchain can think of no value for q with "):
        rows(source(PAIR, *tests))


def project(folder: Path, more: str) -> Path:
    make_project(folder, "qwen-t4", "someone")
    file = folder / "phases" / "phase1.toml"
    file.write_text(file.read_text(encoding="utf-8") + more, encoding="utf-8")
    return folder


def test_an_odd_mapping_is_told_with_its_source_and_the_way_out(tmp_path: Path) -> None:
    chain = load_chain(project(tmp_path, 'where = [{ column = "input", matches = "^(?=\\\\d{9})x$" }]\n'))
    with pytest.raises(InputError) as error:
        stand_ins(chain, ["phase1"])
    assert "phase1.toml" in error.value.message and "codealpaca" in error.value.message
    assert 'rehearsal = "samples/codealpaca.jsonl"' in error.value.hint


@pytest.mark.parametrize(
    ("name", "told"), [("samples/none.jsonl", "there is no file"), ("kchain.toml", "is not a file that a notebook can")]
)
def test_a_sample_that_cannot_be_read_is_told(tmp_path: Path, name: str, told: str) -> None:
    chain = load_chain(project(tmp_path, f'rehearsal = "{name}"\n'))
    with pytest.raises(InputError, match=told) as error:
        stand_ins(chain, ["phase1"])
    assert "codealpaca" in error.value.message


def test_a_sample_of_ones_own_is_published_as_it_is(tmp_path: Path) -> None:
    chain = load_chain(project(tmp_path, 'rehearsal = "a.csv"\n'))
    (tmp_path / "a.csv").write_text("instruction,input,output\nx,,y\n", encoding="utf-8")
    found = stand_ins(chain, ["phase1"])
    publish(tmp_path / "server", found)
    stand = found[0].stand
    assert (stand.kind, stand.words, Path(stand.file).suffix) == ("yours", "a.csv", ".csv")
    published = dataset_folder(tmp_path / "server", *stand.ref.split("/"), 1) / stand.file
    assert published.read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_a_packed_sample_is_read_as_the_notebook_reads_it(tmp_path: Path) -> None:
    chain = load_chain(project(tmp_path, 'rehearsal = "a.jsonl.gz"\n'))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"instruction": "x", "output": "y"}\n'))
    found = stand_ins(chain, ["phase1"])
    publish(tmp_path / "server", found)
    stand = found[0].stand
    published = dataset_folder(tmp_path / "server", *stand.ref.split("/"), 1) / stand.file
    assert list(readers.rows(published)) == [(1, {"instruction": "x", "output": "y"})]


def test_another_content_has_another_name_so_that_it_is_rehearsed_again(tmp_path: Path) -> None:
    chain = load_chain(project(tmp_path, 'rehearsal = "a.jsonl"\n'))
    names = set()
    for text in ('{"a": 1}\n', '{"a": 2}\n', '{"a": 1}\n'):
        (tmp_path / "a.jsonl").write_text(text, encoding="utf-8")
        names.add(stand_ins(chain, ["phase1"])[0].stand.file)
    assert len(names) == 2


def test_every_source_of_the_shipped_chain_gets_rows_of_its_own(tmp_path: Path) -> None:
    make_project(tmp_path, "qwen-t4", "someone")
    chain = load_chain(tmp_path)
    found = stand_ins(chain, [phase.name for phase in chain.phases])
    assert [each.stand.kind for each in found] == ["invented"] * 9
    for each in found:
        phase = chain.phase(each.stand.phase)
        lines = [json.loads(line) for line in each.text.splitlines()]
        assert len(lines) == SPARE * share_of(phase)
