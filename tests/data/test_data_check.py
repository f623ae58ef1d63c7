"""`kchain data check` on phases and files: what it reads, what it says, and when it fails."""

from __future__ import annotations

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command import kchain as typed

CHAIN = '[chain]\nname = "alpha"\nowner = "someone"\n[model]\nsource = "a/b/c/d/1"\n'
PHASE = """title = "Alpha one"
description = "A phase."
[data]
system_prompt = ""
validation = 0.2
{data}
[[data.sources]]
name = "own"
file = "{file}"
fields = {{ prompt = "ask", completion = ["told", "answer"] }}
{more}"""
MOUNTED = """[[data.sources]]
name = "shell"
dataset = "someone/shell"
fields = { prompt = "ask", completion = "answer" }
"""
ROWS = [{"ask": f"ask {n}", "answer": f"answer {n}."} for n in range(40)]


def kchain(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return typed(Path.cwd(), "-C", str(folder), "data", *words, COLUMNS="120")


def checked(folder: Path, *words: str) -> list[dict[str, Any]]:
    done = kchain(folder, "check", *words, "--json")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == (0 if all(one["passed"] for one in found) else 1)
    return found


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def project(folder: Path, rows: list[Any] = ROWS, *, data: str = "", more: str = "", file: str = "own.jsonl") -> Path:
    (folder / "phases").mkdir(parents=True)
    (folder / "kchain.toml").write_text(CHAIN)
    (folder / "phases" / "one.toml").write_text(PHASE.format(data=data, more=more, file=file))
    write(folder / file, rows)
    return folder


def test_a_phase_with_good_examples_passes_and_all_of_it_is_told(tmp_path: Path) -> None:
    (found,) = checked(project(tmp_path))
    assert (found["name"], found["passed"], found["train"] + found["validation"]) == ("one", True, 40)
    assert found["validation"] > 0
    done = kchain(tmp_path, "check", "one")
    assert done.returncode == 0
    for word in ("good enough", "bare_numbers", "duplicates", "training examples", "characters"):
        assert word in done.stdout


def test_bare_numbers_fail_a_phase_unless_it_allows_them(tmp_path: Path) -> None:
    rows = [{"ask": f"{n}?", "answer": "1"} if n < 6 else row for n, row in enumerate(ROWS)]
    (found,) = checked(project(tmp_path / "a", rows))
    assert found["problems"] == ["6 of 40 answers are only a number (15.00%; data.quality.bare_numbers allows 2.00%)"]
    done = kchain(tmp_path / "a", "check")
    assert done.returncode == 1
    assert re.search(r"bare_numbers: [0-5]\? -> 1", done.stdout)
    (allowed,) = checked(project(tmp_path / "b", rows, data="[data.quality]\nbare_numbers = 0.5"))
    assert allowed["passed"]


def test_a_data_set_that_is_not_here_is_told_and_a_copy_of_it_is_read(tmp_path: Path) -> None:
    project(tmp_path, more=MOUNTED)
    (without,) = checked(tmp_path)
    assert (without["absent"], len(without["sources"])) == (["shell"], 1)
    copy = write(tmp_path / "copies" / "x.jsonl", [{"ask": f"more {n}", "answer": f"of {n}."} for n in range(9)])
    for place in (copy, copy.parent):
        (found,) = checked(tmp_path, "--with", f"shell={place}")
        assert found["absent"] == []
        assert [source["read"] for source in found["sources"]] == [40, 9]


def test_a_data_set_of_the_local_server_is_found(tmp_path: Path) -> None:
    from kchain.server.publish import publish_dataset

    project(tmp_path / "project", more=MOUNTED)
    for count in (3, 7):  # the latest version counts
        write(tmp_path / "set" / "x.jsonl", [{"ask": f"more {n}", "answer": f"of {n}."} for n in range(count)])
        publish_dataset(tmp_path / "project" / ".kchain" / "local", "someone/shell", tmp_path / "set")
    (found,) = checked(tmp_path / "project")
    assert [source["read"] for source in found["sources"]] == [40, 7]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], "'nothing' is neither a file nor a phase"),
        (["--with", "x=y"], "one has no source x"),
        (["--with", "x"], "'x' is not NAME=VALUE"),
        (["one", "--validation", "own.jsonl"], "--validation goes with one FILE"),
        (["odd.jsonl"], "so it is unclear which is which: who, what"),
        (["odd.jsonl", "--field", "prompt=who", "--field", "completion=why"], "no row has the column why"),
        (["empty.jsonl", "--field", "text=x"], "2 gave no example\nempty.jsonl line 1: not a JSON object"),
        (["zip.jsonl"], "zip.jsonl is a zip archive"),
        (["own.jsonl", "--tokenizer", "."], ". holds no tokenizer_config.json"),
    ],
)
def test_what_cannot_be_checked_is_said_with_exit_code_2(tmp_path: Path, words: list[str], told: str) -> None:
    project(tmp_path)
    write(tmp_path / "odd.jsonl", [{"who": "a", "what": "b"}])
    write(tmp_path / "empty.jsonl", ["[1]", "[2]"])
    (tmp_path / "zip.jsonl").write_bytes(b"PK\x03\x04")
    done = kchain(tmp_path, "check", *words)
    assert done.returncode == 2, done.stdout
    assert told in done.stderr
    assert "try:" in done.stderr or "--validation goes with" in told


@pytest.mark.parametrize(
    ("row", "recipe"),
    [
        ({"instruction": "a", "input": "x", "output": "b"}, ["a\n\nx", "b"]),
        ({"question": "a", "answer": "b"}, ["a", "b"]),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, ["a", "b"]),
        ({"task": {"description": "a"}, "execution": {"output": "b"}}, ["a", "b"]),
        ({"text": "b"}, ["", "b"]),
    ],
)
def test_usual_columns_need_no_description(tmp_path: Path, row: dict[str, Any], recipe: list[str]) -> None:
    write(tmp_path / "x.jsonl", [row, '{"broken'])
    (found,) = checked(tmp_path, "x.jsonl")
    assert (found["train"], found["sources"][0]["broken"]) == (1, 1)
    assert found["answers"]["max"] == len(recipe[1])


def test_a_second_file_to_judge_by_is_held_against_the_first(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", ROWS)
    write(tmp_path / "other.jsonl", ROWS[:30] + [{"ask": "new", "answer": "thing"}])
    (found,) = checked(tmp_path, "train.jsonl", "--validation", "other.jsonl")
    assert found["faults"]["overlap"]["count"] == 30
    assert "30 of 31 validation examples have a prompt that is also trained on" in found["problems"][0]


def test_rows_of_no_use_are_written_for_whoever_repairs_them(tmp_path: Path) -> None:
    write(tmp_path / "x.jsonl", [*ROWS, '{"ask": "half', {"ask": "a", "answer": ""}])
    kchain(tmp_path, "check", "x.jsonl", "--rejected", "aside.jsonl")
    aside = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert [row["line"] for row in aside] == [41, 42]


def test_rows_that_are_all_of_no_use_are_shown_whatever_they_hold(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"ask": "half\u2028\x85\n', encoding="utf-8")
    done = kchain(tmp_path, "check", "x.jsonl", "--field", "prompt=ask", "--field", "completion=answer")
    assert done.returncode == 2, done.stderr
    assert "x.jsonl line 1:" in done.stderr and "Traceback" not in done.stderr


class Tags(HTMLParser):
    """Tags that are open, and everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


def test_the_page_is_whole_fetches_nothing_and_shows_what_rows_hold_as_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> & <b>"
    rows = [{"ask": evil, "answer": str(n)} for n in range(4)] + ROWS
    done = kchain(project(tmp_path, rows), "check", "--html", "page.html")
    assert done.returncode == 1
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert tags.open == [] and tags.fetched == []
    assert tags.seen.count("svg") == 2 and "rect" in tags.seen and "script" not in tags.seen
    assert "&lt;script&gt;alert(1)" in page
    for told in ("4 of 44 answers are only a number", "bare_numbers", "prefers-color-scheme: dark", "median"):
        assert told in page


def test_collected_interactions_become_examples_that_pass(tmp_path: Path) -> None:
    record = {"agent": {"role": "analyst"}}
    rows = [
        {**record, "task": {"description": f"Look at {n}"}, "execution": {"output": f"It is {n}."}} for n in range(20)
    ]
    write(tmp_path / "in.jsonl", rows)
    (tmp_path / "roles.json").write_text('{"analyst": "You analyse."}')
    done = kchain(tmp_path, "prepare", "in.jsonl", "out", "--system", "roles.json")
    assert done.returncode == 0, done.stderr
    assert "16 train, 2 validation, 2 test, 20 total" in done.stdout
    assert "analyst: 20 examples: You analyse." in done.stdout
    (found,) = checked(tmp_path, "out/train.jsonl", "--validation", "out/test.jsonl")
    assert (found["train"], found["validation"], found["passed"]) == (16, 2, True)
    again = kchain(tmp_path, "prepare", "in.jsonl", "out")
    assert again.returncode == 2 and "--replace" in again.stderr
    assert kchain(tmp_path, "prepare", "in.jsonl", "out", "--test", "0.9").returncode == 2


@pytest.mark.slow
def test_lengths_are_counted_in_a_models_tokens_against_the_cap_of_the_phase(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from kchain.demo.tokenizer import texts, write_tokenizer

    long = {"ask": "a long one", "answer": "word " * 400}
    project(tmp_path, [*ROWS, long], more="[training]\nmax_length = 64\n")
    (tmp_path / "model").mkdir()
    write_tokenizer(texts(), tmp_path / "model")
    (found,) = checked(tmp_path, "--tokenizer", "model")
    assert (found["lengths"]["unit"], found["lengths"]["cap"]) == ("tokens", 64)
    assert found["lengths"]["max"] > 400 and found["faults"]["too_long"]["count"] == 1
