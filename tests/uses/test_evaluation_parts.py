"""Checks of answers, figures of many answers, and the file of questions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kchain.errors import InputError
from kchain.uses.questions import read_questions
from kchain.uses.report import CHECKS, COMPARING, mcnemar, mean_difference, percentile, wilson
from kchain.uses.sides import Side, compare
from kchain.uses.speaker import Reply


@pytest.mark.parametrize(
    "check, answer, expected, due",
    [
        ("exact", " Paris.\n", "Paris.", True),
        ("exact", "Paris", "Paris.", False),
        ("contains", "It is PARIS, of course", "paris", True),
        ("contains", "It is Rome", "paris", False),
        ("regex", "took 42 s", r"\b\d+ s\b", True),
        ("regex", "took long", r"\d", False),
        ("json", 'Here:\n```json\n{"a": [1]}\n```\nDone.', "", True),
        ("json", "0", "", False),
        ("json", '{"a": 1', "", False),
        ("json", "[" * 100_000, "", False),
        ("python", "```python\ndef f():\n    return 1\n```", "", True),
        ("python", "def f(:", "", False),
        ("python", "", "", False),
        ("python", "x = '\0'", "", False),
        ("python", "(" * 5000, "", False),
        ("shell", "ls -la | wc -l", "", True),
        ("shell", "for f in *; do echo $f; done", "", True),
        ("shell", "if true; then", "", False),
        ("shell", "# nothing", "", False),
        ("shell", "cat <<END\nnever ends", "", False),
    ],
)
def test_an_answer_passes_or_fails_its_check(check: str, answer: str, expected: str, due: bool) -> None:
    assert CHECKS[check](answer, expected) is due


def test_nothing_of_an_answer_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    assert CHECKS["shell"](f"touch {mark}; echo $(touch {mark})", "")
    assert CHECKS["python"](f"open({str(mark)!r}, 'w').close()", "")
    assert not mark.exists()


@given(st.text(max_size=60))
def test_no_answer_breaks_a_check(answer: str) -> None:
    for name in ("json", "python", "contains", "exact"):
        assert CHECKS[name](answer, "x") in (True, False)


def test_wilson_s_interval_is_the_published_one() -> None:
    # Newcombe (1998), table I: 81 of 263 and 0 of 20, the latter with its upper end alone.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(20, 20)[1] == 1.0


@given(st.integers(1, 3000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_a_rate_lies_in_its_interval(drawn: tuple[int, int]) -> None:
    successes, count = drawn
    low, high = wilson(successes, count)
    assert 0 <= low <= successes / count <= high <= 1


def test_mcnemar_s_exact_test_counts_coin_tosses() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 5) == pytest.approx(2 / 32)
    assert mcnemar(8, 1) == mcnemar(1, 8) == pytest.approx(2 * 10 / 512)
    assert mcnemar(5, 5) == 1.0
    assert 0 < mcnemar(1400, 1600) < 0.001, "beyond the range of a float"


def test_a_bootstrapped_difference_is_repeatable_and_brackets_the_mean() -> None:
    first, second = [1.0, 2.0, 3.0, 4.0] * 10, [1.5, 2.5, 3.5, 4.4] * 10
    mean, low, high = mean_difference(first, second, 42)
    assert mean == pytest.approx(0.475) and low < mean < high
    assert mean_difference(first, second, 42) == (mean, low, high)
    assert percentile([1, 2, 3, 4, 5], 0.5) == 3


def side(passed: list[bool], seconds: float) -> Side:
    return Side(tuple(Reply("x", 10, seconds + place / 100, True) for place in range(len(passed))), tuple(passed), 7)


@pytest.mark.parametrize(
    "base, chain, better",
    [
        ([False] * 20, [True] * 12 + [False] * 8, "chain"),
        ([True] * 12 + [False] * 8, [False] * 20, "base"),
        ([False] * 20, [True] * 3 + [False] * 17, ""),
        ([True] * 20, [True] * 20, ""),
    ],
)
def test_the_verdict_names_a_winner_only_where_one_is_shown(base: list[bool], chain: list[bool], better: str) -> None:
    verdict = compare(side(base, 2.0), side(chain, 1.0), 42)
    assert (verdict.better, verdict.faster) == (better, "chain")
    assert ("o difference in success shown" in verdict.words()) == (better == "")
    assert compare(side(base, 1.0), side(chain, 1.0), 42).faster == ""


def test_nothing_is_said_of_time_where_too_little_was_asked() -> None:
    answers = [True] * 9
    words = compare(side(answers, 2.0), side(answers, 1.0), 42).words()
    assert words.endswith("so few answers (9) tell nothing about time: at least 10 are needed.")
    assert "in time shown" not in words and "faster" not in words
    assert "no difference in time shown" in compare(side([True] * 10, 1.0), side([True] * 10, 1.0), 42).words()


def test_a_side_s_figures_add_up() -> None:
    figures = side([True, False, True, True], 2.0).figures()
    assert (figures["passed"], figures["questions"], figures["success_rate"]) == (3, 4, 0.75)
    assert figures["tokens_per_second"] == pytest.approx(40 / 8.06)
    assert (figures["ended_rate"], figures["peak_bytes"]) == (1.0, 7)


def write(path: Path, *rows: Any) -> Path:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_questions_come_from_messages_and_from_prompts(tmp_path: Path) -> None:
    talk = [{"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    file = write(
        tmp_path / "q.jsonl",
        {"messages": [*talk, {"role": "assistant", "content": "d"}], "style": "<|terse|>"},
        {"prompt": "p", "context": "c", "completion": 7},
        "",
        {"prompt": "p", "expect": "e", "system": "S"},
    )
    first, second, third = read_questions(file, "exact", "Be kind.", None, 1).asked
    assert [turn["content"] for turn in first.turns] == ["Be kind.", "a", "b", "c"], (
        "a kept example has its style already"
    )
    assert first.expected == "d"
    assert (second.turns[-1]["content"], second.expected) == ("p\n\nc", "7")
    assert (third.turns[0]["content"], third.expected) == ("S", "e")


def test_a_limit_draws_the_same_questions_every_time(tmp_path: Path) -> None:
    file = write(tmp_path / "q.jsonl", *({"prompt": f"p{n}", "completion": "c"} for n in range(50)))
    drawn = [read_questions(file, "exact", "", 5, seed) for seed in (1, 1, 2)]
    assert drawn[0].asked == drawn[1].asked != drawn[2].asked
    assert (drawn[0].held, len(drawn[0].asked)) == (50, 5)


def test_of_examples_that_were_kept_aside_those_that_are_no_questions_are_left_out(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    answered = {"messages": [{"role": "user", "content": "p\u2028q"}, {"role": "assistant", "content": "r"}]}
    file = write(
        tmp_path / "validation.jsonl",
        {"messages": [*talk, {"role": "assistant", "content": ""}]},
        json.dumps(answered, ensure_ascii=False),
    )
    with pytest.raises(InputError, match="line 1"):
        read_questions(file, "contains", "", None, 1)
    kept = read_questions(file, "contains", "", None, 1, written=False)
    assert (kept.held, kept.left_out, kept.asked[0].turns[0]["content"]) == (1, 1, "p\u2028q")
    file = write(tmp_path / "validation.jsonl", {"messages": [*talk, {"role": "assistant", "content": ""}]})
    with pytest.raises(InputError, match="line 1"):
        read_questions(file, "contains", "", None, 1, written=False)


@pytest.mark.parametrize(
    "line, check, words",
    [
        ("{", "json", "line 2: "),
        ("[1]", "json", "is not a JSON object"),
        ('{"text": "x"}', "json", "has neither messages nor prompt"),
        ('{"prompt": " "}', "json", "prompt is empty"),
        ('{"prompt": "x"}', "exact", "no completion or expect, which the check exact compares with"),
        ('{"prompt": "x", "expect": "("}', "regex", "expects something that is not a regular expression"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "json", "nothing that the assistant says"),
        ('{"messages": "x"}', "json", "messages is not a list"),
    ],
)
def test_a_line_that_is_no_question_is_named(tmp_path: Path, line: str, check: str, words: str) -> None:
    file = write(tmp_path / "q.jsonl", {"prompt": "p", "completion": "c"}, line)
    with pytest.raises(InputError, match="line 2") as error:
        read_questions(file, check, "", None, 1)
    assert words in error.value.message


@given(st.binary(max_size=80))
def test_any_file_is_read_or_refused_in_words(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.jsonl"
    file.write_bytes(content)
    for check in ("json", *sorted(COMPARING)):
        try:
            assert read_questions(file, check, "", None, 1).asked
        except InputError as error:
            assert str(file) in error.message
