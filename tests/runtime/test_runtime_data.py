"""Sources: what is read, what is left out and why, and what the mix looks like."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from runtime_tiny import Events, parameters, source, write_jsonl

from kchain.runtime import data
from kchain.runtime.data import Mix
from kchain.runtime.examples import lookup, text
from kchain.runtime.failure import Stop
from kchain.runtime.lots import condition
from kchain.runtime.paths import Paths, session_paths

ROWS = [
    {"ask": "list", "answer": "ls", "language": "bash", "meta": {"level": 1, "tags": {"kind": "files"}}},
    {"ask": "count", "answer": "wc -l", "language": "Shell", "meta": {"level": 2, "tags": {"kind": "text"}}},
    {"ask": "print", "answer": "print(1)", "language": "python", "meta": {"level": 2, "tags": {"kind": "text"}}},
]


@pytest.fixture
def paths(kaggle: Path) -> Paths:
    return session_paths()


def load(paths: Paths, *sources: dict[str, Any], **changes: Any) -> Mix:
    """Everything of the sources, nothing kept aside unless the test asks for it."""
    settings = {"validation": 0.0, "max_examples": 10_000, **changes, "sources": list(sources)}
    return data.load(paths, {**parameters()["data"], **settings}, seed=42)


def answers(mix: Mix) -> list[str]:
    return sorted(example["messages"][-1]["content"] for example in mix.train)


def project(paths: Paths, rows: list[Any], **changes: Any) -> dict[str, Any]:
    write_jsonl(paths.scratch / "project" / "rows.jsonl", rows)
    return source(file="rows.jsonl", **changes)


def where(column: Any, **test: Any) -> list[dict[str, Any]]:
    empty = {"equals": None, "any_of": None, "contains": None, "matches": None, "negate": False}
    return [{"column": column, **empty, **test}]


@pytest.mark.parametrize(
    ("conditions", "kept"),
    [
        (where("language", equals="bash"), ["ls"]),
        (where("language", any_of=["bash", "python"]), ["ls", "print(1)"]),
        (where("language", contains=["SHELL", "bash"]), ["ls", "wc -l"]),
        (where("language", matches="^(bash|Shell)$"), ["ls", "wc -l"]),
        (where("language", matches="^(bash|Shell)$", negate=True), ["print(1)"]),
        (where("meta.level", equals=2), ["print(1)", "wc -l"]),
        (where("meta.tags.kind", equals="files"), ["ls"]),
        (where(["dialect", "language"], equals="bash"), ["ls"]),
        (where("answer", max_characters=2), ["ls"]),
        (where("answer", min_characters=3, max_characters=5), ["wc -l"]),
        (where("answer", min_words=2), ["wc -l"]),
        (where("answer", max_words=1, negate=True), ["wc -l"]),
        (where("meta.level", equals=2) + where("language", equals="python"), ["print(1)"]),
    ],
)
def test_conditions_choose_the_rows(paths: Paths, conditions: list[dict[str, Any]], kept: list[str]) -> None:
    assert answers(load(paths, project(paths, ROWS, where=conditions))) == kept


def test_a_number_in_a_csv_meets_a_condition_on_a_number(paths: Paths) -> None:
    holds = condition(where("level", equals=2)[0])
    assert holds({"level": "2"})
    assert holds({"level": 2})
    assert not holds({"level": None})


def test_a_column_name_with_a_dot_in_it_comes_before_nesting() -> None:
    assert lookup({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert lookup({"a": {"b": 2}}, "a.b") == 2


def test_broken_lines_are_counted_and_the_first_are_shown(paths: Paths, events: Events) -> None:
    rows: list[Any] = [*ROWS, '{"ask": "x", "answer":', "[1, 2]", '{"ask": "\\ud800"', "nonsense"]
    load(paths, project(paths, rows))
    found = events()
    report = next(event for event in found if event["event"] == "source")
    assert (report["read"], report["kept"], report["broken"], report["error"]) == (7, 3, 4, None)
    warnings = [event["message"] for event in found if event["event"] == "warning"]
    assert len(warnings) == 3
    assert "line 4" in warnings[0]


def test_a_line_that_is_not_utf8_is_one_broken_line(paths: Paths) -> None:
    spec = project(paths, ROWS)
    with (paths.scratch / "project" / "rows.jsonl").open("ab") as file:
        file.write(b'{"ask": "\xff\xfe", "answer": "x"}\n')
    assert load(paths, spec).reports[0].broken == 1


def test_an_empty_answer_is_left_out_and_counted(paths: Paths) -> None:
    mix = load(paths, project(paths, [*ROWS, {"ask": "why", "answer": "  "}, {"ask": "why", "answer": None}]))
    assert (mix.reports[0].kept, mix.reports[0].broken) == (3, 2)


def test_content_that_is_no_text_becomes_json(paths: Paths) -> None:
    mix = load(paths, project(paths, [{"ask": 1, "answer": {"a": [1, None]}}]))
    assert [turn["content"] for turn in mix.train[0]["messages"][1:]] == ["1", '{"a": [1, null]}']
    assert text(True) == "true"


def test_half_a_character_in_a_row_does_not_end_the_training_when_it_is_saved(paths: Paths) -> None:
    mix = load(paths, project(paths, ['{"ask": "half \\ud83d", "answer": "whole \\ud83d\\ude00"}']))
    assert [turn["content"] for turn in mix.train[0]["messages"][1:]] == ["half ?", "whole \U0001f600"]


def test_a_system_prompt_is_put_in_where_an_example_has_none(paths: Paths) -> None:
    fields = {"prompt": "ask", "completion": "answer", "system": "system"}
    mix = load(paths, project(paths, [{"ask": "a", "answer": "b", "system": "Own."}, ROWS[0]], fields=fields))
    assert sorted(example["messages"][0]["content"] for example in mix.train) == ["Own.", "You are a shell."]


def test_without_a_system_prompt_there_is_no_system_turn(paths: Paths) -> None:
    mix = load(paths, project(paths, ROWS), system_prompt="")
    assert {example["messages"][0]["role"] for example in mix.train} == {"user"}


def test_a_context_follows_the_prompt(paths: Paths) -> None:
    fields = {"prompt": "ask", "completion": "answer", "context": "more"}
    mix = load(paths, project(paths, [{"ask": "sum up", "answer": "b", "more": "a text"}], fields=fields))
    assert mix.train[0]["messages"][1]["content"] == "sum up\n\na text"


def test_a_conversation_keeps_its_turns_and_its_own_system_prompt(paths: Paths) -> None:
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": 7}, {"role": "assistant", "content": "A"}]
    wrong = [{"role": "user", "content": "x"}, {"role": "robot", "content": "y"}]
    rows = [
        {"messages": turns},
        {"messages": turns[1:]},
        {"messages": wrong},
        {"messages": "x"},
        {"messages": turns[:2]},
    ]
    mix = load(paths, project(paths, rows, fields={"messages": "messages"}), recipe="conversation")
    assert mix.reports[0].broken == 3
    assert sorted(example["messages"][0]["content"] for example in mix.train) == ["S", "You are a shell."]
    assert {example["messages"][1]["content"] for example in mix.train} == {"7"}


def test_turns_of_sharegpt_are_read_as_messages_and_unknown_ones_counted_by_name(paths: Paths) -> None:
    turns = [("system", "S"), ("human", "a"), ("gpt", "b"), ("human", "c"), ("gpt", "d")]
    shared = [[{"from": who, "value": said} for who, said in turns]]
    shared += [[{"from": "human", "value": "a"}, {"from": "bing", "value": "b"}]]
    rows = [{"conversations": one} for one in shared]
    mix = load(paths, project(paths, rows, fields={"messages": "conversations"}), recipe="conversation")
    roles = ["system", "user", "assistant", "user", "assistant"]
    due = [{"role": role, "content": said} for role, (_, said) in zip(roles, turns, strict=True)]
    assert [example["messages"] for example in mix.train] == [due]
    assert [row["reason"] for row in mix.reports[0].rejected] == ["unknown from 'bing'"]


def test_a_turn_that_calls_a_tool_is_not_learned_as_an_empty_answer(paths: Paths) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "ls", "arguments": "{}"}}]}
    asks = {"role": "user", "content": "list"}
    said = {"role": "assistant", "content": "two files"}
    rows = [{"messages": [asks, call, said]}, {"messages": [asks, said]}]
    mix = load(paths, project(paths, rows, fields={"messages": "messages"}), recipe="conversation")
    assert [example["messages"][1:] for example in mix.train] == [[asks, said]]
    assert "calls a tool" in mix.reports[0].rejected[0]["reason"]


def test_a_conversation_that_begins_with_an_answer_needs_a_system_prompt(paths: Paths) -> None:
    turns = [{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "a"}]
    spec = project(paths, [{"turns": turns}, {"turns": [turns[1], turns[0]]}], fields={"messages": "turns"})
    assert load(paths, spec, recipe="conversation").reports[0].broken == 0
    assert load(paths, spec, recipe="conversation", system_prompt="").reports[0].broken == 1


def test_the_text_recipe_takes_one_column(paths: Paths) -> None:
    mix = load(paths, project(paths, ROWS, fields={"text": "answer"}), recipe="text")
    assert sorted(example["text"] for example in mix.train) == ["ls", "print(1)", "wc -l"]


def test_a_column_that_no_row_has_stops_and_names_those_there_are(paths: Paths) -> None:
    with pytest.raises(Stop, match="no row has the column response") as caught:
        load(paths, project(paths, ROWS, fields={"prompt": "ask", "completion": "response"}))
    assert "ask, answer, language, meta" in caught.value.cure


def test_the_first_column_of_several_that_holds_something_counts(paths: Paths) -> None:
    rows = [{"ask": "a", "out": "1"}, {"ask": "b", "out": " ", "told": {"by": "2"}}, {"ask": "c", "out": None}]
    fields = {"prompt": "ask", "completion": ["out", "told.by", "nowhere"]}
    mix = load(paths, project(paths, rows, fields=fields))
    assert answers(mix) == ["1", "2"]
    assert mix.reports[0].broken == 1
    with pytest.raises(Stop, match="no row has the column nowhere or never"):
        load(paths, project(paths, rows, fields={"prompt": "ask", "completion": ["nowhere", "never"]}))


def test_a_condition_on_a_column_that_no_row_has_stops_even_when_negated(paths: Paths) -> None:
    with pytest.raises(Stop, match="no row has the column lang"):
        load(paths, project(paths, ROWS, where=where("lang", equals="bash", negate=True)))


def test_a_source_that_fails_stops_the_phase_with_the_reason(paths: Paths, events: Events) -> None:
    with pytest.raises(Stop, match=r"source shell: there is no file .*absent\.jsonl") as caught:
        load(paths, project(paths, ROWS, name="good"), source(file="absent.jsonl"))
    assert "optional = true" in caught.value.cure
    assert "absent.jsonl" in [event for event in events() if event["event"] == "source"][-1]["error"]


def test_an_optional_source_that_fails_is_skipped_and_its_reason_reported(paths: Paths, events: Events) -> None:
    mix = load(paths, source(file="absent.jsonl", optional=True), project(paths, ROWS, name="good"))
    assert len(mix.train) == 3
    failed, good = (event for event in events() if event["event"] == "source")
    assert "absent.jsonl" in failed["error"]
    assert (good["kept"], good["error"]) == (3, None)
    assert mix.reports[0].counts()["error"] == failed["error"]


def test_sources_that_are_all_optional_and_all_fail_stop_the_phase(paths: Paths) -> None:
    with pytest.raises(Stop, match="no source gave an example"):
        load(paths, source(file="absent.jsonl", optional=True))


@pytest.mark.parametrize("layout", ["datasets/someone/shell-set", "shell-set"])
def test_an_attached_data_set_is_found_in_both_mount_layouts(paths: Paths, layout: str) -> None:
    write_jsonl(paths.input / layout / "deep" / "train.jsonl", ROWS)
    spec = source(kind="dataset", dataset="someone/shell-set", file="deep/train.jsonl")
    assert len(load(paths, spec).train) == 3


def test_a_data_set_that_is_not_mounted_stops_and_names_both_places(paths: Paths) -> None:
    with pytest.raises(Stop) as caught:
        load(paths, source(kind="dataset", dataset="someone/shell-set"))
    assert str(paths.input / "datasets/someone/shell-set") in caught.value.reason
    assert str(paths.input / "shell-set") in caught.value.reason


UNNAMED = {"kind": "dataset", "dataset": "someone/shell-set", "file": None}


@pytest.mark.parametrize("place", ["rows.jsonl", "deep/rows.jsonl", "ROWS.JSONL"])
def test_the_only_readable_file_of_a_data_set_needs_no_name(paths: Paths, place: str) -> None:
    write_jsonl(paths.input / "shell-set" / place, ROWS)
    for other in ("readme.md", "licence.txt", "deep/._rows.jsonl", "deep/deeper/more.csv"):
        (paths.input / "shell-set" / other).parent.mkdir(parents=True, exist_ok=True)
        (paths.input / "shell-set" / other).write_text("not this one")
    assert len(load(paths, source(**UNNAMED)).train) == 3


def test_a_data_set_with_several_readable_files_stops_and_lists_them(paths: Paths) -> None:
    write_jsonl(paths.input / "shell-set" / "train.jsonl", ROWS)
    write_jsonl(paths.input / "shell-set" / "more" / "test.jsonl", ROWS)
    with pytest.raises(Stop, match=r"several files that can be read: there is more/test\.jsonl, train\.jsonl"):
        load(paths, source(**UNNAMED))


@pytest.mark.parametrize(
    ("choice", "found"),
    [
        ({"file": "data/*.jsonl"}, ["0", "1", "9"]),
        ({"file": "data/train-*"}, ["0", "1"]),
        ({"split": "train"}, ["0", "1"]),
        ({"split": "test"}, ["9"]),
    ],
)
def test_a_data_set_in_several_files_is_read_by_pattern_or_split(
    paths: Paths, choice: dict[str, str], found: list[str]
) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        number = "9" if "test" in name else name[10]
        write_jsonl(paths.input / "shell-set" / "data" / f"{name}.jsonl", [{"ask": name, "answer": number}])
    assert answers(load(paths, source(**{**UNNAMED, **choice}))) == found


def test_a_split_that_no_file_is_named_after_stops_and_lists_the_files(paths: Paths) -> None:
    for name in ("train.csv", "contest.csv"):
        (paths.input / "shell-set").mkdir(exist_ok=True)
        (paths.input / "shell-set" / name).write_text("ask,answer\na,b\n")
    with pytest.raises(Stop, match=r"named after the split test; there is contest\.csv, train\.csv"):
        load(paths, source(**UNNAMED, split="test"))


def test_a_data_set_without_a_readable_file_stops_and_lists_what_it_has(paths: Paths) -> None:
    folder = paths.input / "shell-set"
    folder.mkdir()
    for number in range(25):
        (folder / f"{number:02}.png").write_bytes(b"")
    with pytest.raises(Stop, match=r"no file that can be read \(\.jsonl, .*: there is 00\.png, .*19\.png and 5 more"):
        load(paths, source(**UNNAMED))


def in_file(paths: Paths, name: str, content: bytes) -> dict[str, Any]:
    folder = paths.input / "shell-set"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(content)
    return source(kind="dataset", dataset="someone/shell-set", file=name)


def test_a_json_array_is_read(paths: Paths) -> None:
    spec = in_file(paths, "all.json", json.dumps([*ROWS, "no object"]).encode())
    mix = load(paths, spec)
    assert (len(mix.train), mix.reports[0].broken) == (3, 1)


def test_json_lines_under_the_name_of_json_are_read(paths: Paths) -> None:
    spec = in_file(paths, "all.json", "\n".join(json.dumps(row) for row in ROWS).encode())
    assert len(load(paths, spec).train) == 3


def test_a_broken_json_array_is_a_failed_source_and_not_a_traceback(paths: Paths) -> None:
    with pytest.raises(Stop, match=r"all\.json is not valid JSON"):
        load(paths, in_file(paths, "all.json", b'[{"ask": "x", "answer": "y"}, {"ask": '))


def test_a_csv_is_read_as_text_and_rows_of_another_width_are_counted(paths: Paths) -> None:
    spec = in_file(paths, "all.csv", '\ufeffask,answer\nlist,"ls, all"\nnull,NA\ntoo,many,cells\nfew\n'.encode())
    mix = load(paths, spec)
    assert answers(mix) == ["NA", "ls, all"]
    assert mix.reports[0].broken == 2


def test_a_parquet_file_is_read_with_nested_columns(paths: Paths, tmp_path: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    parquet.write_table(arrow.Table.from_pylist(ROWS), tmp_path / "x.parquet")
    spec = in_file(paths, "all.parquet", (tmp_path / "x.parquet").read_bytes())
    assert answers(load(paths, {**spec, "where": where("meta.tags.kind", equals="text")})) == ["print(1)", "wc -l"]


def test_a_set_of_hugging_face_is_loaded_by_name(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_jsonl(tmp_path / "someone" / "commands" / "train.jsonl", ROWS)  # the library takes a folder of that name
    monkeypatch.chdir(tmp_path)
    assert len(load(paths, source(kind="huggingface", huggingface="someone/commands", file=None)).train) == 3


@pytest.mark.parametrize("name", ["all.jsonl", "all.json", "all.jsonl.gz"])
def test_gzip_is_read_whatever_the_name_says(paths: Paths, name: str) -> None:
    spec = in_file(paths, name, gzip.compress(b'{"ask": "x", "answer": "y"}\n'))
    assert answers(load(paths, spec)) == ["y"]


def test_gzip_that_was_cut_off_is_refused_by_name(paths: Paths) -> None:
    packed = gzip.compress(b"".join(b'{"ask": "x", "answer": "%d"}\n' % n for n in range(100)))
    with pytest.raises(Stop, match=r"all\.jsonl is damaged gzip"):
        load(paths, in_file(paths, "all.jsonl", packed[:-20]))


@pytest.mark.parametrize(
    ("content", "what"),
    [(b"PK\x03\x04rest", "a zip archive"), ("{}".encode("utf-16"), "UTF-16"), (b"PAR1rest", "a Parquet file")],
)
def test_a_file_that_is_something_else_is_refused_by_name(paths: Paths, content: bytes, what: str) -> None:
    with pytest.raises(Stop, match=rf"all\.jsonl is {what}"):
        load(paths, in_file(paths, "all.jsonl", content))


def test_an_unknown_kind_of_file_is_refused_with_those_that_are_known(paths: Paths) -> None:
    with pytest.raises(Stop, match=r"all\.xlsx: unknown kind") as caught:
        load(paths, in_file(paths, "all.xlsx", b"PK"))
    assert ".parquet" in caught.value.cure


def many(count: int) -> list[dict[str, str]]:
    return [{"ask": f"ask {n}", "answer": f"{n:04}"} for n in range(count)]


def test_a_limit_draws_from_the_whole_source_and_the_same_seed_draws_the_same(paths: Paths) -> None:
    spec = project(paths, many(2000), limit=100)
    drawn = answers(load(paths, spec))
    assert len(set(drawn)) == 100
    assert drawn == answers(load(paths, spec))
    assert 700 < sum(int(answer) for answer in drawn) / 100 < 1300, "not only the first or the last rows"


def test_sources_are_mixed_capped_and_split_without_overlap(paths: Paths) -> None:
    one = project(paths, many(50), name="one")
    write_jsonl(paths.scratch / "project" / "two.jsonl", [{"ask": "x", "answer": f"two {n}"} for n in range(50)])
    mix = load(paths, one, source(name="two", file="two.jsonl"), max_examples=60, validation=0.1)
    assert len(mix.train) + len(mix.validation) == 60
    assert 1 <= len(mix.validation) <= 15, "about a tenth"
    told = [example["messages"][-1]["content"] for example in mix.train + mix.validation]
    assert len(set(told)) == 60
    assert 15 < sum(answer.startswith("two") for answer in told) < 45


def test_the_validation_split_has_a_ceiling_and_at_least_one_example(paths: Paths) -> None:
    assert len(load(paths, project(paths, many(50)), validation=0.4, max_validation=7).validation) == 7
    assert len(load(paths, project(paths, many(5)), validation=0.02).validation) == 1
