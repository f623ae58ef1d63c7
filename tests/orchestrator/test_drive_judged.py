"""What a chain learned and forgot, as a person sees it: the matrix of `kchain status`, its JSON, and the page."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from drive_model import make_chain
from rich.console import Console

from kchain.cli.show import TITLE, print_judged
from kchain.errors import InputError
from kchain.orchestrator.journal.state import Ancestor, PhaseFailure, PhaseState, Result, Version
from kchain.orchestrator.judging.result import ResultFile, parse
from kchain.orchestrator.status import read_results, write_page
from kchain.phases import Chain

EVIL = "<script>alert('x')</script> & \x1b[31m"


def figures(loss: float, accuracy: float = 0.5) -> dict[str, float]:
    return {"loss": loss, "token_accuracy": accuracy}


def split(phase: str, before: float | None, after: float) -> dict[str, Any]:
    old = None if before is None else figures(before)
    return {"phase": phase, "examples": 8, "before": old, "after": figures(after)}


def answer(text: str, ended: bool) -> dict[str, Any]:
    return {"text": text, "tokens": 4, "ended": ended}


ONE = {
    "status": "complete",
    "pad_id": 151645,
    "lineage": [],
    "metrics": {"loss_first": 3.0, "loss_last": 1.0, "eval_loss": 1.1, "eval_loss_before": 3.1, "all_epochs": True,
                "token_accuracy": 0.5, "eos_rate": 1.0, "eos_rate_before": 0.25, "style_separation": 16.0},
    "evaluation": {
        "splits": [split("one", 3.1, 1.1)],
        "not_judged": [{"phase": "zero", "reason": "it was trained elsewhere"}],
        "samples": [{"prompt": EVIL, "expected": "e", "before": answer("old", False), "after": answer("new", True)}],
        "styles": {"prompts": 2, "by_style": {"<TERSE>": {"tokens": 2.0, "ended": 1.0},
                                              "<VERBOSE>": {"tokens": 32.0, "ended": 0.5}}},
        "absent": {"forgotten": "there is no phase before this one"},
    },
    "examples": {"train": 1234, "validation": 8, "sources": [dict.fromkeys(
        ("read", "kept", "filtered", "broken", "duplicates", "capped"), 3) | {"name": "shell"}]},
    "quality": {"faults": {"bare_numbers": {"count": 3, "of": 1242, "share": 0.0024, "shown": []}}},
    "versions": {"torch": "2.99.1"},
}  # fmt: skip
TWO = {
    **ONE,
    "lineage": [{"phase": "one", "sha256": "a"}],
    "evaluation": {"splits": [split("one", 1.1, 1.9), split("two", 4.0, 0.7)]},
}


def record(chain: Chain, phase: str, sha256: str, result: Any) -> PhaseState:
    """A finished phase whose outputs lie in the project."""
    folder = chain.root / "runs" / phase / "v3"
    folder.mkdir(parents=True)
    content = result if isinstance(result, str) else json.dumps({**result, "adapter": {"sha256": sha256 * 64}})
    (folder / "kchain-result.json").write_text(content, encoding="utf-8")
    known = Result(
        3, "kernel", f"me/{phase}", "adapter", False, sha256 * 64, 42_000_000, (), 151645, {}, {}, 3600.0,
        f"runs/{phase}/v3/adapter", 10.0,
    )  # fmt: skip
    version = Version(3, "https://example.org/k?scriptVersionId=3", "h", (), (), resend=False, time=10.0)
    return PhaseState(version=version, result=known, time=10.0)


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return make_chain(tmp_path, 3)


@pytest.fixture
def states(chain: Chain) -> dict[str, PhaseState]:
    two = record(chain, "two", "b", TWO)
    assert two.result is not None
    lineage = (Ancestor("one", "a" * 64),)
    return {"one": record(chain, "one", "a", ONE), "two": replace(two, result=replace(two.result, lineage=lineage))}


def printed(chain: Chain, states: dict[str, PhaseState]) -> str:
    file = io.StringIO()
    print_judged(Console(file=file, width=80, highlight=False), chain, states)
    return file.getvalue()


def page(chain: Chain, states: dict[str, PhaseState]) -> str:
    path = chain.root / "pages" / "chain.html"
    write_page(path, chain, "kaggle", states)
    return path.read_text(encoding="utf-8")


def test_the_matrix_has_a_row_for_each_phase_and_a_column_for_each_split(chain: Chain, states: Any) -> None:
    lines = printed(chain, states).strip().splitlines()
    assert lines[0] == TITLE
    assert lines[1].split() == ["phase", "on", "one", "on", "two", "answers", "that", "end", "style", "separation"]
    assert lines[2].split() == ["one", "3.100", "->", "1.100", "-", "25%", "->", "100%", "16.0x"]
    assert lines[3].split()[:7] == ["two", "1.100", "->", "1.900", "4.000", "->", "0.700"]
    assert len(lines) == 4, "a phase without a result has no row"


def test_a_chain_of_which_nothing_is_known_prints_no_matrix(chain: Chain) -> None:
    assert printed(chain, {}) == ""


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{", '{"evaluation": 3}', '{"evaluation": {"splits": [3, {"phase": "x"}]}, "metrics": []}'],
)
def test_a_result_file_that_makes_no_sense_is_shown_as_nothing(chain: Chain, content: str) -> None:
    states = {"one": record(chain, "one", "a", content)}
    assert printed(chain, states) == ""
    assert "There is no result of this phase on this machine" in page(chain, states)


@pytest.mark.parametrize("loss", [float("nan"), "1.0", None])
def test_figures_that_are_no_numbers_are_left_out(loss: Any) -> None:
    after = {"phase": "one", "examples": 8, "before": figures(1.0), "after": {"loss": loss, "token_accuracy": 0.1}}
    assert parse(ResultFile, {"evaluation": {"splits": [after]}}, Path("x")).evaluation.splits == []


def test_the_file_of_another_adapter_than_the_verified_one_is_not_believed(chain: Chain, states: Any) -> None:
    file = chain.root / "runs" / "one" / "v3" / "kchain-result.json"
    file.write_text(file.read_text(encoding="utf-8").replace("a" * 64, "c" * 64), encoding="utf-8")
    assert list(read_results(chain, states)) == ["two"]


def test_a_phase_that_missed_its_gates_shows_what_it_reached(chain: Chain) -> None:
    state = record(chain, "one", "a", {**ONE, "bundle": "h"})
    failure = PhaseFailure("h", 3, "GateMissed", "one version 3 missed its gates", "more epochs", "{}", 1.0)
    assert state.version is not None
    failed = replace(state, result=None, failure=failure, version=replace(state.version, folder="runs/one/v3"))
    assert "3.100 -> 1.100" in printed(chain, {"one": failed})
    shown = page(chain, {"one": failed})
    assert "one version 3 missed its gates" in shown
    assert "more epochs" in shown
    other = replace(failed, version=replace(failed.version, hash="another"))
    assert printed(chain, {"one": other}) == "", "the outputs of another bundle"


def test_the_page_says_everything_that_a_person_asks_for(chain: Chain, states: Any) -> None:
    shown = page(chain, states)
    for words in (
        "2 of 3 phases done", "a" * 64, 'href="https://example.org/k?scriptVersionId=3"', "42.0 MB",
        "from 1.100, +0.800", "token accuracy", "pad id", "old", "new",
        "16.0 times as long", "1,234 examples learned from", "bare numbers", "2.99.1",
        "What was forgotten of zero is not known: it was trained elsewhere.",
    ):  # fmt: skip
        assert words in shown, words


def test_nothing_a_model_said_becomes_part_of_the_page(chain: Chain, states: Any) -> None:
    shown = page(chain, states)
    assert "<script" not in shown
    assert "&lt;script&gt;alert(&#39;x&#39;)" in shown
    assert "&lt;TERSE&gt;" in shown


def test_a_link_that_is_no_web_address_is_not_made(chain: Chain, states: Any) -> None:
    version = replace(states["one"].version, url="javascript:alert(1)")
    shown = page(chain, {"one": replace(states["one"], version=version)})
    assert "javascript" not in shown
    assert "version 3" in shown


class Tags(HTMLParser):
    """Checks that every element that is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(chain: Chain, states: Any) -> None:
    shown = page(chain, states)
    tags = Tags()
    tags.feed(shown)
    assert tags.open == []
    assert not re.search(r"\bsrc=|<link|@import|url\(", shown)
    assert "prefers-color-scheme: dark" in shown
    assert 'name="viewport"' in shown


def test_a_place_that_cannot_be_written_is_told(chain: Chain) -> None:
    (chain.root / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_page(chain.root / "file" / "chain.html", chain, "kaggle", {})
