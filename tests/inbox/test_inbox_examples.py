"""What a dropped file is to a phase: its columns, its lines, and the run that comes of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from kchain.errors import InputError
from kchain.inbox.examples import Rejection, check, derive, mapping, title_of, write_lines
from kchain.phases import Chain, Gates, load_chain
from kchain.runtime.readers import Broken, rows
from kchain.templates.parameters import parameters_of_phase

CHAIN = '[chain]\nname = "alpha"\nowner = "someone"\naccelerator = "cpu"\n[model]\nsource = "a/b/c/d/1"\n'
PHASE = """title = "Alpha phase one"
description = "A phase."
[data]
recipe = "{recipe}"
[[data.sources]]
name = "far"
dataset = "someone/far"
file = "far.jsonl"
where = [{{ column = "kind", equals = "good" }}]
limit = 3
fields = {fields}
[[data.sources]]
name = "own"
file = "own.jsonl"
fields = {own}
"""
SHA256 = "0123456789abcdef"
PAIRS = '{ prompt = "q", completion = ["a", "b"], context = "more" }'


def make_chain(root: Path, recipe: str = "prompt_completion", fields: str = PAIRS, own: str = "") -> Chain:
    (root / "phases").mkdir(parents=True)
    (root / "kchain.toml").write_text(CHAIN)
    own = own or '{ prompt = "ask.text", completion = "told" }'
    (root / "phases" / "one.toml").write_text(PHASE.format(recipe=recipe, fields=fields, own=own))
    (root / "own.jsonl").write_text('{"ask": {"text": "x"}, "told": "y"}\n')
    return load_chain(root)


def write(path: Path, found: list[Any]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in found]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "row, fields",
    [
        ({"ask": {"text": "p"}, "told": "c"}, {"prompt": "ask.text", "completion": "told"}),
        ({"q": "p", "b": "c"}, {"prompt": "q", "completion": ("a", "b")}),
        ({"q": "p", "a": "c", "more": ""}, {"prompt": "q", "completion": ("a", "b"), "context": "more"}),
        ({"instruction": "p", "input": "i", "output": "c"},
         {"prompt": "instruction", "completion": "output", "context": "input"}),
    ],
)  # fmt: skip
def test_columns_are_those_of_the_phase_or_usual_ones(tmp_path: Path, row: Any, fields: dict[str, Any]) -> None:
    phase = make_chain(tmp_path).phase("one")
    written = write_lines(write(tmp_path / "x.jsonl", [row]), tmp_path / "lines" / "x.jsonl", phase)
    assert mapping(phase, written) == fields


def test_a_column_that_only_a_late_row_has_is_mapped(tmp_path: Path) -> None:
    phase = make_chain(tmp_path).phase("one")
    found = [{"q": f"p{n}", "a": "c"} for n in range(300)] + [{"q": "p", "a": "c", "more": "m"}]
    written = write_lines(write(tmp_path / "x.jsonl", found), tmp_path / "lines" / "x.jsonl", phase)
    assert "context" in mapping(phase, written)


def test_a_conversation_may_come_as_messages_or_as_pairs(tmp_path: Path) -> None:
    phase = make_chain(tmp_path, "conversation", '{ messages = "chat" }', '{ messages = "talk" }').phase("one")
    for row, field in (({"conversations": []}, "messages"), ({"prompt": "p", "response": "r"}, "completion")):
        written = write_lines(write(tmp_path / "x.jsonl", [row]), tmp_path / "lines" / "x.jsonl", phase)
        assert field in mapping(phase, written)


def test_a_file_that_a_phase_cannot_learn_from_is_told_with_its_columns_and_lines(tmp_path: Path) -> None:
    phase = make_chain(tmp_path).phase("one")
    written = write_lines(write(tmp_path / "x.jsonl", ["{", {"title": "t"}]), tmp_path / "lines" / "x.jsonl", phase)
    with pytest.raises(InputError) as told:
        mapping(phase, written)
    assert "its columns: title" in told.value.message
    assert "line 1: Expecting property name" in told.value.message
    assert "prompt + completion" in told.value.hint


def test_lines_travel_in_their_places_and_broken_ones_stay_broken(tmp_path: Path) -> None:
    phase = make_chain(tmp_path).phase("one")
    good = {"q": "naïve 中", "a": 1e300, "half": "\ud800"}
    source = write(tmp_path / "x.jsonl", [json.dumps(good), "", "[1]", "{broken", {"q": "p"}])
    write_lines(source, tmp_path / "lines" / "x.jsonl", phase)
    found = list(rows(tmp_path / "lines" / "x.jsonl"))
    assert [number for number, _ in found] == [1, 3, 4, 5]
    assert [isinstance(row, Broken) for _, row in found] == [False, True, True, False]
    assert found[0][1] == good


def test_a_run_differs_from_its_phase_in_name_and_data_alone(tmp_path: Path) -> None:
    chain = make_chain(tmp_path)
    lines = write(tmp_path / "0123456789.jsonl", [{"q": "p", "a": "c"}])
    run = derive(chain, "one", SHA256, lines, {"prompt": "q", "completion": "a"})
    real, made = chain.phase("one"), run.chain.phase(run.name)
    changed = {
        field.name for field in dataclasses.fields(real) if getattr(real, field.name) != getattr(made, field.name)
    }
    assert changed == {"name", "title", "data"}
    told, derived = (
        parameters_of_phase(chain, "one", "kaggle", ()),
        parameters_of_phase(run.chain, run.name, "kaggle", ()),
    )
    assert {key for key in told if told[key] != derived[key]} == {"phase", "title", "data"}
    assert {key for key in told["data"] if told["data"][key] != derived["data"][key]} == {"sources"}
    assert run.chain.kernel(run.name).startswith("someone/alpha-phase-one-inbox-")
    assert (made.data.sources[0].where, made.data.sources[0].limit) == ((), None)
    assert run.chain.phases[:-1] == chain.phases


@pytest.mark.parametrize("letter, count", [("x", 300_000), ("😀", 60_000)])
def test_a_file_too_large_for_a_notebook_travels_as_a_data_set(tmp_path: Path, letter: str, count: int) -> None:
    chain = make_chain(tmp_path)
    lines = write(tmp_path / "0123456789.jsonl", [{"q": "p", "a": letter * count}])
    run = derive(chain, "one", SHA256, lines, {"prompt": "q", "completion": "a"})
    assert run.dataset == "someone/alpha-inbox-01234567"
    source = run.chain.phase(run.name).data.sources[0]
    assert (source.kind.name, source.place, source.file) == ("dataset", run.dataset, lines.name)


def test_a_file_is_measured_by_the_thresholds_of_the_phase(tmp_path: Path) -> None:
    chain = make_chain(tmp_path)
    found = [{"q": f"how many {n}?", "a": str(n)} for n in range(50)] + ["{"]
    dropped = write(tmp_path / "numbers.jsonl", found)
    run = derive(chain, "one", SHA256, dropped, {"prompt": "q", "completion": "a"})
    wrong = check(run.chain, run.name, dropped)
    assert isinstance(wrong, Rejection)
    assert "50 of 50 answers are only a number" in wrong.wrong
    assert "numbers.jsonl line 51" in wrong.wrong
    assert "data.quality" in wrong.cure
    good = write(tmp_path / "good.jsonl", [{"q": f"how many {n}?", "a": f"There are {n} of them."} for n in range(50)])
    assert check(run.chain, run.name, good) == "49 training examples, 1 for validation"


def test_what_a_cap_leaves_out_is_said(tmp_path: Path) -> None:
    chain = make_chain(tmp_path)
    one = chain.phase("one")
    capped = dataclasses.replace(one, data=one.data.model_copy(update={"max_examples": 20}))
    good = write(tmp_path / "good.jsonl", [{"q": f"how many {n}?", "a": f"There are {n} of them."} for n in range(50)])
    run = derive(dataclasses.replace(chain, phases=(capped,)), "one", SHA256, good, {"prompt": "q", "completion": "a"})
    found = check(run.chain, run.name, good)
    assert isinstance(found, str)
    assert found.endswith("; 30 more are left out by data.max_examples or max_validation")


def test_a_file_too_small_for_the_gates_is_rejected_before_it_is_trained_on(tmp_path: Path) -> None:
    chain = make_chain(tmp_path)
    one = chain.phase("one")
    small = write(tmp_path / "small.jsonl", [{"q": "how many?", "a": "There are some."}])
    fields: dict[str, Any] = {"prompt": "q", "completion": "a"}
    run = derive(chain, "one", SHA256, small, fields)
    assert check(run.chain, run.name, small) == "1 training examples, 0 for validation"
    gated = dataclasses.replace(one, gates=Gates(max_eval_loss=1.0))
    run = derive(dataclasses.replace(chain, phases=(gated,)), "one", SHA256, small, fields)
    wrong = check(run.chain, run.name, small)
    assert isinstance(wrong, Rejection)
    assert "no example could be held out for validation, which gates.max_eval_loss" in wrong.wrong


def test_phases_whose_titles_begin_alike_have_kernels_of_their_own_for_a_file() -> None:
    title = "Our own support assistant, round one of many"
    titles = [title_of(title, phase, "0" * 64) for phase in ("one", "two")]
    assert titles[0] != titles[1]
    assert all(len(each) <= 50 for each in titles)
