"""`kchain data check --download`: data sets fetched from a target, and from where Hugging Face's library looks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kchain.server import launch
from kchain.server.publish import publish_dataset

PHASE = """title = "Alpha phase one"
description = "A phase."
[data]
[[data.sources]]
name = "{name}"
{place}
fields = {{ prompt = "ask", completion = "answer" }}
"""


def write_rows(path: Path, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"ask": f"ask {n}", "answer": f"It is answer {n}."} for n in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The URL of a server that holds one data set of two files, and its key file."""
    root, files = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("files")
    write_rows(files / "deep" / "train.jsonl", 30)
    write_rows(files / "other.jsonl", 2)
    publish_dataset(root, "someone/shell", files)
    endpoint = launch.ensure_running(root, profile="machine")
    yield endpoint.url, root / launch.KEY
    launch.stop(root)


def project(folder: Path, *places: tuple[str, str]) -> Path:
    (folder / "phases").mkdir(parents=True)
    (folder / "kchain.toml").write_text(
        '[chain]\nname = "alpha"\nowner = "someone"\n[model]\nsource = "a/b/c/d/1"\n', encoding="utf-8"
    )
    text = PHASE.format(name=places[0][0], place=places[0][1])
    for name, place in places[1:]:
        text += PHASE[PHASE.index("[[data") :].format(name=name, place=place)
    (folder / "phases" / "one.toml").write_text(text)
    return folder


def check(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "kchain", "data", "check", "one", "--json", "--download", *words],
        cwd=folder, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_a_data_set_of_the_target_is_fetched_once_and_looked_at(tmp_path: Path, target: tuple[str, Path]) -> None:
    url, key = target
    folder = project(
        tmp_path / "project",
        ("shell", 'dataset = "someone/shell"\nfile = "deep/*.jsonl"'),
        ("gone", 'dataset = "someone/gone"\noptional = true'),
    )
    first = check(folder, "--target", url, KCHAIN_KEY_FILE=str(key))
    assert first.returncode == 0, first.stderr
    (found,) = json.loads(first.stdout)
    assert ([source["read"] for source in found["sources"]], found["absent"]) == ([30], ["gone"])
    assert "fetching deep/train.jsonl of someone/shell" in first.stderr
    assert "other.jsonl" not in first.stderr
    assert "gone (optional)" in first.stderr
    again = check(folder, "--target", url, KCHAIN_KEY_FILE=str(key))
    assert "fetching" not in again.stderr
    assert json.loads(again.stdout) == [found]


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ('dataset = "someone/gone"', "someone/gone"),
        ('dataset = "someone/shell"\nfile = "x.jsonl"', "no file x.jsonl"),
    ],
)
def test_what_a_target_has_not_is_said_by_name(tmp_path: Path, target: tuple[str, Path], place: str, told: str) -> None:
    done = check(project(tmp_path / "p", ("x", place)), "--target", target[0], KCHAIN_KEY_FILE=str(target[1]))
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


def test_a_data_set_of_hugging_face_is_loaded_by_its_name(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", ("talk", 'huggingface = "owner/talk"'))
    # The library takes a folder of that name for the data set, so that nothing needs a network here.
    write_rows(folder / "owner" / "talk" / "train.jsonl", 25)
    done = check(folder, HF_HOME=str(tmp_path / "home"), HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["sources"][0]["read"] == 25


def test_without_a_network_hugging_face_is_a_sentence(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", ("talk", 'huggingface = "owner/talk"'))
    done = check(folder, HF_HOME=str(tmp_path / "home"), HF_DATASETS_OFFLINE="1", HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert "source talk: " in done.stderr
