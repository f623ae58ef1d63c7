"""`kchain evaluate` as a person types it: both sides really answer, and the report says what they did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import kchain
from export_tools import base_of

from kchain.uses.report import page

ROWS = [{"prompt": f"List file {number}", "expect": pattern} for number, pattern in enumerate((".", "^$", "(?s).*"))]


@pytest.fixture(scope="module")
def report(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of three questions by --check regex, with its page."""
    folder = tmp_path_factory.mktemp("report")
    data = folder / "held-out.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    given = (
        "--check",
        "regex",
        "--data",
        str(data),
        "--max-tokens",
        "5",
        "--html",
        str(folder / "page.html"),
        "--json",
    )
    done = kchain(project, "evaluate", *given)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert (folder / "page.html").read_text(encoding="utf-8") == page(told)
    return told


def test_both_sides_answer_every_question_and_only_the_adapters_differ(report: dict[str, Any]) -> None:
    assert [row["expected"] for row in report["answers"]] == [row["expect"] for row in ROWS]
    for row in report["answers"]:
        assert row["base"]["text"] != row["chain"]["text"]
        assert 0 < row["chain"]["tokens"] <= 5 and row["chain"]["seconds"] > 0
    assert report["answers"][2]["base"]["passed"] and report["answers"][2]["chain"]["passed"]
    for name, side in report["sides"].items():
        assert side["questions"] == 3
        assert side["passed"] == sum(row[name]["passed"] for row in report["answers"])
        assert side["peak_bytes"] > 10**8
        assert side["mean_latency"] <= side["p95_latency"]
    assert report["verdict"]["better"] == "", "three questions show nothing"
    assert [each["phase"] for each in report["lineage"]] == ["phase1", "phase2"]
    assert report["probe"] is None, "these sessions recorded none"


def test_the_page_stands_alone_and_escapes_what_models_say(report: dict[str, Any]) -> None:
    spoilt = json.loads(json.dumps(report))
    spoilt["answers"][0]["chain"]["text"] = "<script>alert(1)</script>"
    html = page(spoilt)
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "http" not in html, "nothing is fetched"
    assert report["verdict"]["words"].split(";")[0] in html


def test_without_a_file_the_questions_are_those_the_session_kept_aside(project: Path) -> None:
    done = kchain(project, "evaluate", "--check", "shell")
    assert done.returncode == 2
    assert "saved no validation set" in " ".join(done.stderr.split())
    kept = project / "runs/local/phase2/v1/validation.jsonl"
    turns = [{"role": "user", "content": "List"}, {"role": "assistant", "content": "ls"}]
    kept.write_text(json.dumps({"messages": turns}) + "\n")
    done = kchain(project, "evaluate", "--check", "json", "--max-tokens", "3")
    assert done.returncode == 0, done.stderr
    assert "1 of 1 questions of validation.jsonl" in done.stdout
    for word in (
        "base",
        "chain",
        "0/1 = 0.0%",
        "o difference in success shown",
        "so few answers (1) tell nothing about time",
    ):
        assert word in done.stdout, done.stdout


def test_bad_input_is_refused_before_a_model_is_loaded(project: Path, tmp_path: Path) -> None:
    for given, words in (
        (("--data", str(tmp_path / "missing")), "cannot be read"),
        (("nobody",), "there is no phase 'nobody'"),
        (("--check", "regex"), "are not regular expressions"),
        (("--base", str(base_of(project) / "missing")), "is not the folder of a model"),
    ):
        done = kchain(project, "evaluate", "--check", "json", *given)
        assert done.returncode == 2 and words in " ".join(done.stderr.split()), done.stderr
