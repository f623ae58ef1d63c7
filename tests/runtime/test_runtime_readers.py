"""Whatever a file holds: every row of it is counted once, and what cannot be read is a sentence, not a traceback."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from runtime_tiny import parameters, source

from kchain.runtime import data, readers
from kchain.runtime.data import COUNTS, Report
from kchain.runtime.failure import Stop
from kchain.runtime.paths import Paths
from kchain.runtime.readers import Broken, rows

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
CELL = st.one_of(
    st.text(max_size=12), st.sampled_from(["", " ", "ls", "0", '"', "a,b", "x\ny", "\ud800", "é", "\u2028", "=1"])
)
VALUE = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), CELL, st.lists(CELL, max_size=2))
ROW = st.dictionaries(st.sampled_from(["ask", "answer", "kind", "meta"]), VALUE, max_size=4)
LINE = st.one_of(
    ROW.map(json.dumps).map(str.encode),
    VALUE.map(json.dumps).map(str.encode),
    st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")),
    st.sampled_from([b"", b"   ", b"{", b"\xff\xfe", b'{"ask": "x"', b"[" * 3000, b'{"ask": 1' + b"0" * 5000 + b"}"]),
)
WHERE = [{"column": ["kind", "ask"], "equals": "ls", "negate": True}]


def outcome(name: str, content: bytes, **changes: Any) -> tuple[Report, bool]:
    """The report of a source with that file, and whether anything came of it. Nothing but Stop may come out."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / name).write_bytes(content)
        spec = source(kind="path", place=str(place / name), file=None, optional=True, where=WHERE, **changes)
        table = {**parameters()["data"], "max_examples": 3, "sources": [spec]}
        told: list[dict[str, Any]] = []
        try:
            mix = data.load(Paths(place, place, place), table, 1, tell=lambda event, **fields: told.append(fields))
        except Stop:
            found = next(fields for fields in told if "read" in fields)
            return Report(**found), False
        return mix.reports[0], True


def adds_up(report: Report) -> bool:
    parts = COUNTS[1:]
    return report.read == sum(getattr(report, part) for part in parts) and min(report.counts()[p] for p in parts) >= 0


@QUICK
@given(st.lists(LINE, max_size=8))
def test_every_line_of_a_json_lines_file_is_counted_once(lines: list[bytes]) -> None:
    content = b"\n".join(lines)
    report, _ = outcome("x.jsonl", content)
    assert adds_up(report)
    if not content.startswith((b"\x1f\x8b", *readers.FOREIGN)):
        assert report.read == sum(1 for line in content.split(b"\n") if line and not line.isspace())


@QUICK
@given(st.lists(st.one_of(ROW, VALUE), max_size=8), st.sampled_from([None, 2]), st.booleans())
def test_every_element_of_a_json_array_is_counted_once(values: list[Any], indent: int | None, packed: bool) -> None:
    content = json.dumps(values, indent=indent).encode()
    report, _ = outcome("x.json", gzip.compress(content) if packed else content)
    assert adds_up(report)
    assert report.read == len(values)


@QUICK
@given(st.lists(st.lists(CELL.filter(lambda cell: cell.isprintable()), min_size=1, max_size=4), max_size=6))
def test_every_row_of_a_csv_file_is_counted_once(table: list[list[str]]) -> None:
    file = io.StringIO()
    csv.writer(file).writerows([["ask", "answer"], *table])
    report, _ = outcome("x.csv", file.getvalue().encode("utf-8", "surrogatepass"))
    assert adds_up(report)
    assert report.read == len(table)


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.csv", "x.tsv", "x.parquet", "x.jsonl.gz"])
@QUICK
@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(LINE, max_size=5).map(lambda lines: b"[" + b",".join(lines)),
        st.lists(LINE, max_size=3).map(lambda lines: gzip.compress(b"\n".join(lines))[:-3]),
        st.lists(CELL, max_size=9).map(lambda cells: "".join(cells).encode("utf-8", "replace")),
    )
)
def test_a_file_of_anything_gives_counts_or_a_reason(name: str, content: bytes) -> None:
    report, usable = outcome(name, content)
    assert adds_up(report)
    assert usable or report.error


@QUICK
@given(st.lists(st.fixed_dictionaries({"ask": st.none() | st.text(), "answer": st.text()}), min_size=1), st.integers())
def test_a_parquet_file_is_read_whole_and_a_damaged_one_is_refused(table: list[dict[str, Any]], cut: int) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    file = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(table), file)
    report, _ = outcome("x.parquet", file.getvalue())
    assert adds_up(report) and report.read == len(table)
    damaged, usable = outcome("x.parquet", file.getvalue()[: cut % len(file.getvalue())])
    assert not usable and "x.parquet is damaged" in (damaged.error or "")


def read(path: Path) -> list[Any]:
    return [row for _, row in rows(path)]


def test_a_long_array_is_read_without_holding_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = [{"n": n, "text": "x" * (n % 50), "more": [n, {"a": None}]} for n in range(300)]
    (tmp_path / "x.json").write_text(json.dumps(values, indent=1))
    for chunk in (1, 7, 64, 1000):
        monkeypatch.setattr(readers, "CHUNK", chunk)
        assert read(tmp_path / "x.json") == values, chunk


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('[{"a": 1}, {"a": ', "after element 1: it ends in the middle|after element 1: Expecting"),
        ('[{"a": 1} {"a": 2}]', "after element 1: expected a comma"),
        ('[{"a": 1}] trailing', "after element 1: there is more after the end"),
        ('[{"a": 1},]', "after element 1"),
    ],
)
def test_a_damaged_array_says_after_which_element(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(Stop, match=reason):
        read(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ('{\n "ask": "a",\n "answer": "b"\n}\n', [{"ask": "a", "answer": "b"}]),
        ('{\n "rows": [{"ask": "a"}, {"ask": "b"}]\n}', [{"ask": "a"}, {"ask": "b"}]),
        ('\n\n{"ask": "a"}\n{"ask": "b"}\n', [{"ask": "a"}, {"ask": "b"}]),
        ('\ufeff[\n{"ask": "a"}]', [{"ask": "a"}]),
    ],
)
def test_a_json_file_may_hold_one_object_an_object_around_rows_or_lines(
    tmp_path: Path, content: str, found: list[Any]
) -> None:
    (tmp_path / "x.json").write_text(content, encoding="utf-8")
    assert read(tmp_path / "x.json") == found


def test_a_quotation_mark_that_is_never_closed_is_told_and_not_read_as_one_long_cell(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text('ask,answer\na,b\nc,"d\ne,f\ng,h\n')
    first, second = rows(tmp_path / "x.csv")
    assert first == (2, {"ask": "a", "answer": "b"})
    assert second[0] == 3 and isinstance(second[1], Broken)
    assert "it ends at line 5" in second[1].reason


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("ask,answer,ask\na,b,c\n")
    with pytest.raises(Stop, match=r"x\.csv has several columns 'ask'"):
        read(tmp_path / "x.csv")
