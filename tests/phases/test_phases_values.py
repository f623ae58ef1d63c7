"""Values of the wrong kind, odd files and odd names: each is told in words, none becomes a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from kchain.errors import InputError
from kchain.phases import RETIRED, Chain, load_chain

CHAIN = '[chain]\nname = "alpha"\nowner = "someone"\n{more}[model]\nsource = "a/b/c/d/1"\n'
PHASE = (
    'title = "Alpha one"\ndescription = "A phase."\n[data]\n'
    'sources = [{{ name = "s", {place}, fields = {{ prompt = "p", completion = "c" }}{where} }}]\n{rest}'
)
MOUNTED = 'dataset = "a/b", file = "c.jsonl"'


def load(
    root: Path, *, more: str = "", place: str = MOUNTED, where: str = "", rest: str = "", stem: str = "one"
) -> Chain:
    (root / "phases").mkdir(exist_ok=True)
    (root / "kchain.toml").write_text(CHAIN.format(more=more), encoding="utf-8")
    text = PHASE.format(place=place, where=f", where = [{where}]" if where else "", rest=rest)
    (root / "phases" / f"{stem}.toml").write_text(text, encoding="utf-8")
    return load_chain(root)


def complaint(root: Path, **values: str) -> list[str]:
    """The problems, one a line."""
    with pytest.raises(InputError) as caught:
        load(root, **values)
    return [line.strip() for line in caught.value.message.split("\n")[1:]]


def test_a_value_of_another_type_is_not_taken_for_the_right_one(tmp_path: Path) -> None:
    rest = '[training]\nepochs = "3"\nbatch = true\naccumulation = 8.0\nlearning_rate = "x"\n'
    assert complaint(tmp_path, rest=rest) == [
        "phases/one.toml: training.epochs: a whole number; found '3'",
        'phases/one.toml: training.batch: a whole number, or "auto"; found True',
        "phases/one.toml: training.accumulation: a whole number; found 8.0",
        "phases/one.toml: training.learning_rate: a number; found 'x'",
    ]


@pytest.mark.parametrize(
    "values, told",
    [
        ({"rest": "[lora]\ntargets = 'q_proj'"}, "lora.targets: a list, in [brackets]; found 'q_proj'"),
        ({"rest": "[training]\ncheckpointing = 1"}, 'training.checkpointing: true or false, or "auto"; found 1'),
        ({"rest": "[gates]\nmax_loss = inf"}, "gates.max_loss: a finite number; found inf"),
        ({"rest": "[gates]\nmax_loss = []"}, "gates.max_loss: a number; found ()"),
        ({"rest": "[gates]\nall_epochs = 'yes'"}, "gates.all_epochs: true or false; found 'yes'"),
        ({"rest": "training = 1"}, "data.training: unknown key; allowed here: recipe,"),
        ({"where": "{ column = 'a', equals = 2020-01-01 }"}, "where.0.equals: a text, a number, true or false; found"),
        ({"where": "{ column = 'a', equals = nan }"}, "where.0.equals: a text, a number, true or false; found nan"),
        ({"where": "{ column = 'a', any_of = [inf] }"}, "any_of.0: a text, a number, true or false; found inf"),
        ({"where": "{ column = 3, equals = 1 }"}, "where.0.column: a column, or a list of columns; found 3"),
        ({"where": "{ column = [], equals = 1 }"}, "where.0.column: a column, or a list of columns; found ()"),
        ({"where": "{ column = ['a', 1], equals = 1 }"}, "where.0.column: a column, or a list of columns; found 1"),
        ({"place": 'dataset = "https://x/a/b", file = "c"'}, "dataset: owner/name; found 'https://x/a/b'"),
    ],
)
def test_each_mistake_is_one_line_that_says_what_is_allowed(tmp_path: Path, values: dict[str, str], told: str) -> None:
    (line,) = complaint(tmp_path, **values)
    assert told in line


def test_a_bad_item_of_a_list_is_not_also_called_a_short_list(tmp_path: Path) -> None:
    assert complaint(tmp_path, where="{ column = 'a' }") == [
        "phases/one.toml: data.sources.0.where.0: give exactly one of any_of, contains, equals, matches or a length; "
        "found none"
    ]


def test_an_empty_list_of_sources_is_still_told(tmp_path: Path) -> None:
    load(tmp_path)
    path = tmp_path / "phases" / "one.toml"
    path.write_text('title = "Alpha one"\ndescription = "x"\n[data]\nsources = []\n')
    with pytest.raises(InputError, match=r"data\.sources: .*at least 1"):
        load_chain(tmp_path)


def test_numbers_and_switches_to_compare_with_keep_their_type(tmp_path: Path) -> None:
    tests = [f"{{ column = 'a', equals = {value} }}" for value in ("true", "3", "'3'")]
    chain = load(tmp_path, where=", ".join(tests))
    values = [condition.equals for condition in chain.phase("one").data.sources[0].where]
    assert [(type(value), value) for value in values] == [(bool, True), (int, 3), (str, "3")]


@pytest.mark.parametrize(
    "rest",
    ["[training]\nbatch = " + "1" * 5000, "x = " + "[" * 5000 + "]" * 5000, "x = ", "\x00"],
    ids=["a number of 5000 digits", "arrays in arrays", "no value", "a NUL"],
)
def test_what_no_toml_reader_takes_is_told(tmp_path: Path, rest: str) -> None:
    (line,) = complaint(tmp_path, rest=rest)
    assert line.startswith("phases/one.toml: is not TOML:")


def test_a_regular_expression_too_deep_for_python_is_told(tmp_path: Path) -> None:
    (line,) = complaint(tmp_path, where=f"{{ column = 'a', matches = '{'(' * 3000}{')' * 3000}' }}")
    assert "matches is not a regular expression" in line


def test_files_that_begin_with_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_bytes(b'\xef\xbb\xbf{"p": "a"}\r\n')
    load(tmp_path, place='file = "own.jsonl"')
    path = tmp_path / "kchain.toml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_chain(tmp_path).files == {"own.jsonl": '{"p": "a"}\n'}


@pytest.mark.parametrize("stem", ["Phase 1", "phäse", "a.b", "-x", "p" * 41])
def test_a_phase_file_with_a_name_that_cannot_be_typed_is_told(tmp_path: Path, stem: str) -> None:
    (line,) = complaint(tmp_path, stem=stem)
    assert line.startswith(f"phases/{stem}.toml: a phase is named by its file: small letters")


@pytest.mark.parametrize("old, new", RETIRED.items())
def test_a_retired_machine_is_told_with_its_successor(tmp_path: Path, old: str, new: str) -> None:
    (line,) = complaint(tmp_path, more=f'accelerator = "{old}"\n')
    assert line == f"kchain.toml: accelerator: Kaggle retired {old} and silently gives you a {new}; name that one"


def test_a_title_of_two_lines_is_refused(tmp_path: Path) -> None:
    load(tmp_path)
    path = tmp_path / "phases" / "one.toml"
    path.write_text(path.read_text().replace("Alpha one", "Alpha\\none"))
    with pytest.raises(InputError, match="title: one line, without control characters"):
        load_chain(tmp_path)


@pytest.mark.parametrize(
    "name, told",
    [
        ("a b.jsonl", "letters, digits"),
        ("a{x}.jsonl", "letters, digits"),
        ("$HOME.jsonl", "letters, digits"),
        ("a\\\\b.jsonl", "letters, digits"),
        ("a\\u0000.jsonl", "letters, digits"),
        ("../own.jsonl", "outside the project"),
        ("/etc/own.jsonl", "outside the project"),
        ("data/../own.jsonl", "without '.', '..'"),
        ("./own.jsonl", "without '.', '..'"),
        ("own.xlsx", "is not a file of examples: write them as one of .jsonl, .ndjson, .json, .csv, .tsv, .parquet"),
        ("missing.jsonl", "cannot be read"),
        ("data.jsonl", "cannot be read"),
    ],
)
def test_a_project_file_with_an_odd_path_is_told(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "data.jsonl").mkdir()
    (tmp_path / "own.jsonl").write_text("{}\n")
    (line,) = complaint(tmp_path, place=f'file = "{name}"')
    assert told in line


def test_a_link_that_leaves_the_project_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside.jsonl"
    outside.write_text("{}\n")
    project = tmp_path / "project"
    project.mkdir()
    (project / "own.jsonl").symlink_to(outside)
    (line,) = complaint(project, place='file = "own.jsonl"')
    assert "is outside the project" in line


@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "has no example"),
        (b"\n\n", "has no example"),
        (b'{"a": 1}\n[1]\n', "line 2 is not a JSON object"),
        (b'{"a": 1\n', "line 1 is not JSON"),
        (b"\xff", "is not UTF-8"),
        (b'{"a": "\\ud83d"}\n', "line 1 holds half of a surrogate pair"),
        (b"[" * 100_000, "line 1 is not JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "line 1 is not JSON"),
        (b'{"a": "' + b"x" * 300_000 + b'"}', "over 256 KiB"),
    ],
)
def test_a_project_file_that_could_not_be_trained_on_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "own.jsonl").write_bytes(content)
    (line,) = complaint(tmp_path, place='file = "own.jsonl"')
    assert told in line
    assert len(line) < 400, "the message does not repeat the file"


def test_a_surrogate_pair_is_one_character(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_bytes(b'{"a": "\\ud83d\\ude00"}\n')
    assert load(tmp_path, place='file = "own.jsonl"').files == {"own.jsonl": '{"a": "😀"}\n'}
