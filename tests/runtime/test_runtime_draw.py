"""What is drawn, what is left out as a duplicate, and who is kept aside: decided by content, not by place."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from runtime_tiny import Events, parameters, source, write_jsonl

from kchain.runtime import data
from kchain.runtime.data import Mix
from kchain.runtime.failure import Stop
from kchain.runtime.lots import Draw, Entry, Lottery, fingerprint, normalized, said
from kchain.runtime.paths import Paths


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path, tmp_path, tmp_path)


def load(paths: Paths, *rows: list[Any], seed: int = 42, options: dict[str, Any] | None = None, **changes: Any) -> Mix:
    """One source per list of rows; each gets the options."""
    sources = []
    for number, each in enumerate(rows):
        write_jsonl(paths.scratch / "project" / f"{number}.jsonl", each)
        sources.append(source(name=f"s{number}", file=f"{number}.jsonl", **(options or {})))
    table = {**parameters()["data"], "validation": 0.0, "max_examples": 10_000, **changes, "sources": sources}
    return data.load(paths, table, seed)


def pair(ask: str, answer: str) -> dict[str, str]:
    return {"ask": ask, "answer": answer}


def asks(examples: list[dict[str, Any]]) -> set[str]:
    return {example["messages"][-2]["content"] for example in examples}


def many(numbers: range) -> list[dict[str, str]]:
    return [pair(f"ask {n}", f"answer {n}") for n in numbers]


TWICE = [pair("List files", "ls"), pair("list  FILES", "LS"), pair("List files", "ls"), pair("list files", "ls -a")]


@pytest.mark.parametrize(("how", "kept"), [("normalized", 2), ("exact", 3), ("none", 4)])
def test_duplicates_are_left_out_as_the_phase_says(paths: Paths, how: str, kept: int) -> None:
    mix = load(paths, TWICE, deduplicate=how)
    assert (len(mix.train), mix.reports[0].kept, mix.reports[0].duplicates) == (kept, kept, 4 - kept)


def test_a_fullwidth_copy_is_a_duplicate_and_another_answer_is_not() -> None:
    assert normalized("ｌｓ　－Ａ\n") == normalized("LS -a")
    same, other = ({"messages": [{"role": "user", "content": "a"}, {"role": who, "content": "b"}]} for who in "xy")
    assert fingerprint(same) != fingerprint(other)


def test_the_same_question_under_another_system_prompt_is_no_duplicate_but_stays_on_its_side() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    plain, told = {"messages": turns}, {"messages": [{"role": "system", "content": "S"}, *turns]}
    assert said(plain) == said(told)
    assert fingerprint(plain) != fingerprint(told)


def test_what_stands_in_two_sources_is_kept_once_and_counted(paths: Paths) -> None:
    mix = load(paths, many(range(30)), many(range(20, 50)))
    assert len(mix.train) == len(asks(mix.train)) == 50
    assert [(report.kept, report.duplicates) for report in mix.reports] == [(30, 0), (20, 10)]


@pytest.mark.parametrize("changes", [{"max_examples": 40}, {"options": {"limit": 40}}])
def test_a_draw_does_not_depend_on_the_order_of_the_rows(paths: Paths, changes: dict[str, Any]) -> None:
    rows = many(range(500))
    drawn = load(paths, rows, **changes)
    random.Random(5).shuffle(rows)
    again = load(paths, rows, **changes)
    assert drawn.train == again.train, "the same examples in the same order"
    assert (drawn.reports[0].kept, drawn.reports[0].capped) == (40, 460)
    assert asks(load(paths, rows, seed=43, **changes).train) != asks(drawn.train)


def test_a_source_may_draw_with_a_seed_of_its_own(paths: Paths) -> None:
    one, same, other = (
        asks(load(paths, many(range(300)), options={"limit": 30, "seed": seed}).train) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_every_example_is_as_likely_to_be_drawn(paths: Paths) -> None:
    mix = load(paths, many(range(2000)), options={"limit": 400})
    first_half = sum(int(ask.split()[1]) < 1000 for ask in asks(mix.train))
    assert 150 < first_half < 250


@settings(max_examples=60, deadline=None)
@given(
    old=st.sets(st.integers(0, 400), min_size=30, max_size=200),
    new=st.sets(st.integers(401, 900), max_size=200),
    share=st.sampled_from([0.1, 0.3]),
    most=st.sampled_from([3, 20, 1000]),
    cap=st.sampled_from([25, 10_000]),
)
def test_no_example_changes_sides_when_others_are_added(
    old: set[int], new: set[int], share: float, most: int, cap: int
) -> None:
    before, after = (sides(numbers, share, most, cap) for numbers in (old, old | new))
    assume(len(before[1]) > 1 and len(after[1]) > 1)  # a single one may stand there because none would otherwise
    assert not before[0] & after[1], "an example that was trained on is judged by"
    assert not before[1] & after[0], "an example that was judged by is trained on"


def sides(numbers: set[int], share: float, most: int, cap: int) -> tuple[set[str], set[str]]:
    """Who is trained on and who is judged by, of examples with these numbers."""
    draw, lottery = Draw(cap), Lottery("mix/1")
    for number in sorted(numbers, reverse=True):
        example = {"text": f"example {number}"}
        key = fingerprint(example)
        draw.offer(lottery.lot(key), key, Entry(example, 0))
    train, validation = data.split([entry for _, entry in draw.drawn()], share, most, 1)
    assert len(validation) <= most
    return {entry.example["text"] for entry in train}, {entry.example["text"] for entry in validation}


def test_the_share_that_is_kept_aside_is_about_what_was_asked_for(paths: Paths) -> None:
    mix = load(paths, many(range(3000)), validation=0.1, max_validation=1000)
    assert 240 < len(mix.validation) < 360
    assert not asks(mix.train) & asks(mix.validation)


def test_examples_over_the_most_to_judge_by_are_not_learned_either_and_that_is_told(
    paths: Paths, events: Events
) -> None:
    mix = load(paths, many(range(1000)), validation=0.2, max_validation=50)
    assert len(mix.validation) == 50
    assert 700 < len(mix.train) < 900
    assert mix.reports[0].capped == 1000 - 50 - len(mix.train)
    assert "for neither training nor validation" in next(e["message"] for e in events() if e["event"] == "warning")


def test_a_few_examples_still_give_one_to_judge_by_and_one_to_learn_from(paths: Paths) -> None:
    for count in (2, 3, 5):
        mix = load(paths, many(range(count)), validation=0.01)
        assert (len(mix.train), len(mix.validation)) == (count - 1, 1)
    assert len(load(paths, many(range(2)), validation=0.49).train) == 1


def test_broken_rows_are_kept_aside_with_their_place_and_reason(paths: Paths, events: Events) -> None:
    rows: list[Any] = [pair("a", "b"), '{"ask": "half', pair("c", " "), "[1]"]
    load(paths, rows)
    aside = [json.loads(line) for line in (paths.working / "rejected.jsonl").read_text().splitlines()]
    assert [(row["source"], row["file"], row["line"]) for row in aside] == [("s0", "0.jsonl", n) for n in (2, 3, 4)]
    assert "Invalid control character" in aside[0]["reason"] and aside[0]["row"] == '{"ask": "half'
    assert aside[1]["reason"] == "completion is empty"
    assert "0.jsonl line 2" in next(event["message"] for event in events() if event["event"] == "warning")


def test_a_million_broken_rows_do_not_fill_the_output(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "ASIDE", 5)
    mix = load(paths, [pair("a", "b"), *["{" + "x" * 9000] * 30])
    assert mix.reports[0].broken == 30
    aside = (paths.working / "rejected.jsonl").read_text().splitlines()
    assert len(aside) == 5 and len(aside[0]) < 3000


def test_rows_are_kept_aside_also_when_the_source_stops_the_phase(paths: Paths) -> None:
    with pytest.raises(Stop, match="none of 2 rows could be used"):
        load(paths, ["{", "["])
    assert len((paths.working / "rejected.jsonl").read_text().splitlines()) == 2
