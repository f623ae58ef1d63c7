"""`kchain plan`, `render` and `lint` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import kchain

CHAIN = '[chain]\nname = "demo"\nowner = "someone"\n[model]\nsource = "qwen-lm/qwen2.5/transformers/0.5b-instruct/1"\n'
PHASE = (
    'title = "Demo phase {name}"\ndescription = "Teaches {name}."\n{after}[data]\n'
    'sources = [{{ name = "s", dataset = "a/b", file = "c.jsonl", fields = {{ prompt = "p", completion = "c" }} }}]\n'
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "phases").mkdir()
    (tmp_path / "kchain.toml").write_text(CHAIN)
    (tmp_path / "phases" / "one.toml").write_text(PHASE.format(name="one", after=""))
    (tmp_path / "phases" / "two.toml").write_text(PHASE.format(name="two", after='after = "one"\n'))
    return tmp_path


def test_plan_shows_every_phase_with_its_reasons_and_the_sum(project: Path) -> None:
    done = kchain(project, "plan")
    assert done.returncode == 0, done.stderr
    for words in ("one  Demo phase one", "built on", "3 x 24,500 examples / 16 a step", "no bf16", "of adapters"):
        assert words in done.stdout, words
    assert "In all: 9,192 steps" in done.stdout


def test_plan_of_one_phase_as_json_is_one_document(project: Path) -> None:
    (found,) = json.loads(kchain(project, "plan", "two", "--json").stdout)
    assert (found["phase"], found["built_on"], found["steps"]) == ("two", ["one"], 4596)


def test_plan_says_what_does_not_fit(project: Path) -> None:
    with (project / "phases" / "one.toml").open("a") as file:
        file.write("[training]\nepochs = 90\nmax_sessions = 1\n")
    done = kchain(project, "plan", "one")
    assert "does not fit" in done.stdout
    assert done.returncode == 0


def test_render_writes_every_phase_and_prints_where(project: Path) -> None:
    done = kchain(project, "render")
    assert done.returncode == 0, done.stderr
    for name in ("one", "two"):
        assert f"build/kaggle/{name}" in done.stdout
        assert (project / "build" / "kaggle" / name / "notebook.ipynb").is_file()


def test_render_for_another_target_goes_into_its_own_folder(project: Path) -> None:
    done = kchain(project, "render", "two", "--target", "http://127.0.0.1:9", "--json")
    (row,) = json.loads(done.stdout)
    assert row["folder"] == "build/http-127-0-0-1-9/two"
    assert len(row["hash"]) == 64
    assert 10_000 < row["bytes"] < 2**20


def test_what_render_wrote_passes_lint(project: Path) -> None:
    kchain(project, "render")
    done = kchain(project, "lint", "build/kaggle/one", "build/kaggle/two/kernel-metadata.json")
    assert (done.returncode, done.stdout.count("nothing found")) == (0, 2), done.stdout


def test_lint_of_a_broken_folder_says_why_and_how_and_exits_1(project: Path) -> None:
    kchain(project, "render", "one")
    path = project / "build" / "kaggle" / "one" / "kernel-metadata.json"
    path.write_text(path.read_text().replace("NvidiaTeslaT4", "NvidiaTeslaP100"))
    done = kchain(project, "lint", "build/kaggle/one")
    assert done.returncode == 1
    for words in ("1 error, 0 warnings", "KC107", "why ", "cure "):
        assert words in done.stdout, words
    (told,) = json.loads(kchain(project, "lint", "build/kaggle/one", "--json").stdout)
    assert told["findings"][0]["rule"] == "KC107"


def test_warnings_alone_do_not_fail(project: Path) -> None:
    kchain(project, "render", "one")
    path = project / "build" / "kaggle" / "one" / "kernel-metadata.json"
    path.write_text(path.read_text().replace('"is_private": true', '"is_private": false'))
    done = kchain(project, "lint", "build/kaggle/one")
    assert (done.returncode, "KC111" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    "words, message",
    [
        (["plan", "nine"], "there is no phase 'nine'"),
        (["render", "nine"], "there is no phase 'nine'"),
        (["render", "--target", "ftp://x"], "target 'ftp://x' is unknown"),
        (["lint", "nowhere"], "nowhere is not a folder"),
        (["lint"], "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_a_sentence_and_exit_code_2(project: Path, words: list[str], message: str) -> None:
    done = kchain(project, *words)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert message in done.stderr


def test_outside_of_a_project_the_way_to_one_is_shown(tmp_path: Path) -> None:
    done = kchain(tmp_path, "plan")
    assert done.returncode == 2
    assert "kchain init" in done.stderr
