"""Files of the project in any format travel as JSON lines, and what is wrong in them is told with its place."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from kchain.errors import InputError
from kchain.phases import Chain, load_chain
from kchain.templates.code import project_files
from kchain.templates.parameters import parameters_of_phase

CHAIN = '[chain]\nname = "alpha"\nowner = "someone"\n[model]\nsource = "a/b/c/d/1"\n'
PHASE = (
    'title = "Alpha one"\ndescription = "A phase."\n[data]\n'
    'sources = [{{ name = "s", file = "{file}", fields = {{ prompt = "p", completion = "c" }} }}]\n'
)


def load(root: Path, file: str, content: bytes) -> Chain:
    (root / "phases").mkdir()
    (root / "kchain.toml").write_text(CHAIN)
    (root / "phases" / "one.toml").write_text(PHASE.format(file=file))
    (root / file).write_bytes(content)
    return load_chain(root)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("own.csv", b'p,c\na,"b\nsecond line"\n'),
        ("own.tsv", b'p\tc\na\t"b\nsecond line"\n'),
        ("own.json", b'[\n {"p": "a", "c": "b\\nsecond line"}\n]'),
        ("own.jsonl", b'{"p": "a", "c": "b\\nsecond line"}\n'),
        ("own.jsonl.gz", gzip.compress(b'{"p": "a", "c": "b\\nsecond line"}\n', mtime=0)),
    ],
)
def test_the_notebook_gets_one_json_object_a_line_under_a_name_that_says_so(
    tmp_path: Path, file: str, content: bytes
) -> None:
    chain = load(tmp_path, file, content)
    (cell,) = project_files(chain, "one")
    (source,) = parameters_of_phase(chain, "one", "kaggle", [])["data"]["sources"]
    assert cell.path == source["file"] == (file if file == "own.jsonl" else f"{file}.jsonl")
    assert [json.loads(line) for line in cell.text.splitlines()] == [{"p": "a", "c": "b\nsecond line"}]


def test_a_parquet_file_of_the_project_travels_too(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.Table.from_pylist([{"p": "a", "c": {"d": 1}}]), tmp_path / "made.parquet")
    (cell,) = project_files(load(tmp_path, "own.parquet", (tmp_path / "made.parquet").read_bytes()), "one")
    assert json.loads(cell.text) == {"p": "a", "c": {"d": 1}}


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("own.csv", b"p,c\na,b\nc\n", "'own.csv' line 3: 1 cells, the header has 2"),
        ("own.csv", b"p,p\na,b\n", "has several columns 'p'"),
        ("own.csv", b"p,c\n", "has no example"),
        ("own.json", b'[{"p": "a"}, 3]', "'own.json' line 2: not a JSON object"),
        ("own.json", b'[{"p": "a"}', "own.json is not valid JSON after element"),
        ("own.parquet", b"no", "own.parquet is damaged, or no Parquet file"),
        ("own.csv", b"p,c\n" + b"abc,def\n" * 60_000, "is over 256 KiB"),
    ],
)
def test_a_row_that_is_wrong_is_told_when_the_project_is_read(
    tmp_path: Path, file: str, content: bytes, told: str
) -> None:
    with pytest.raises(InputError, match="1 problem in this project") as caught:
        load(tmp_path, file, content)
    assert told in caught.value.message
