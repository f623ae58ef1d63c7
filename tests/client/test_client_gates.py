"""Gates: each one met, missed, and asked of a result that does not say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kchain.orchestrator.judging import gates as judging
from kchain.orchestrator.judging.advice import advise
from kchain.orchestrator.judging.gates import GateResult
from kchain.orchestrator.judging.result import ResultFile, parse
from kchain.phases import Gates

PAD = 151645
GOOD = {
    "status": "complete",
    "reason": None,
    "pad_id": PAD,
    "metrics": {"loss_first": 2.0, "loss_last": 0.5, "token_accuracy": 0.8, "steps": 10, "all_epochs": True},
}
ALL = Gates(all_epochs=True, max_loss=0.8, min_loss_fall=0.5, min_token_accuracy=0.75)


def with_metrics(**changes: Any) -> dict[str, Any]:
    return GOOD | {"metrics": {**GOOD["metrics"], **changes}}


def check(result: dict[str, Any], gates: Gates, pad_id: int) -> list[GateResult]:
    return judging.check(parse(ResultFile, result, Path("kchain-result.json")), gates, pad_id)


def missed(result: dict[str, Any], gates: Gates = ALL) -> list[GateResult]:
    return [gate for gate in check(result, gates, PAD) if not gate.passed]


def test_a_good_result_passes_every_gate_that_is_asked() -> None:
    found = check(GOOD, ALL, PAD)
    assert [gate.name for gate in found] == [
        "pad id",
        "all epochs",
        "loss at the end",
        "fall of the loss",
        "token accuracy",
    ]
    assert all(gate.passed for gate in found)


def test_the_pad_id_is_asked_whatever_the_gates_say() -> None:
    nothing = Gates(all_epochs=False)
    assert [gate.name for gate in check(GOOD, nothing, PAD)] == ["pad id"]
    (gate,) = missed(GOOD | {"pad_id": 151654}, nothing)
    assert (gate.wanted, gate.got) == ("151645", "151654")


@pytest.mark.parametrize(
    ("result", "name"),
    [
        (GOOD | {"pad_id": None}, "pad id"),
        (GOOD | {"pad_id": str(PAD)}, "pad id"),
        (with_metrics(loss_last=0.81), "loss at the end"),
        (with_metrics(token_accuracy=0.74), "token accuracy"),
        (with_metrics(all_epochs=False), "all epochs"),
        (GOOD | {"status": "partial", "reason": "a step takes 23 s where 5 s were planned"}, "all epochs"),
        (GOOD | {"status": "failed"}, "all epochs"),
        (with_metrics(loss_first=0.9), "fall of the loss"),
    ],
)
def test_each_gate_can_be_missed_alone(result: dict[str, Any], name: str) -> None:
    assert [gate.name for gate in missed(result)] == [name]


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), "0.1", True, [0.1]])
@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("loss_last", {"loss at the end", "fall of the loss"}),
        ("loss_first", {"fall of the loss"}),
        ("token_accuracy", {"token accuracy"}),
    ],
)
def test_a_metric_that_is_no_number_misses_its_gate(key: str, names: set[str], value: Any) -> None:
    assert {gate.name for gate in missed(with_metrics(**{key: value}))} == names


@pytest.mark.parametrize("result", [{}, {"metrics": None}, {"metrics": {}}])
def test_a_result_that_says_nothing_passes_nothing(result: dict[str, Any]) -> None:
    assert not any(gate.passed for gate in check(result, ALL, PAD))
    assert all(gate.got for gate in check(result, ALL, PAD))


def test_the_reason_of_a_partial_run_is_shown() -> None:
    (gate,) = missed(GOOD | {"status": "partial", "reason": "out of time"})
    assert gate.got == "status partial: out of time"


JUDGED = Gates(all_epochs=False, max_eval_loss=1.0, max_forgotten=0.1, min_eos_rate=0.9, min_style_separation=3.0)
FIGURES = {"eval_loss": 1.0, "forgotten": 0.1, "eos_rate": 0.9, "style_separation": 3.0}
NAMES = {
    "eval_loss": "validation loss",
    "forgotten": "forgotten",
    "eos_rate": "answers that end by themselves",
    "style_separation": "style separation",
}


def judged(**changes: Any) -> dict[str, Any]:
    """The result of a phase that is built on another one."""
    return {**with_metrics(**{**FIGURES, **changes}), "lineage": [{"phase": "one", "sha256": "1"}]}


def test_what_was_judged_is_asked_for_in_its_own_units() -> None:
    found = check(judged(), JUDGED, PAD)[1:]
    assert [(gate.name, gate.wanted, gate.got) for gate in found] == [
        ("validation loss", "<= 1", "1"),
        ("forgotten", "loss rises by <= 0.1 nats", "+0.1 nats"),
        ("answers that end by themselves", ">= 90.0%", "90.0%"),
        ("style separation", ">= 3", "3"),
    ]
    assert all(gate.passed for gate in found), "limits themselves pass"


@pytest.mark.parametrize(
    ("key", "value"), [("eval_loss", 1.01), ("forgotten", 0.11), ("eos_rate", 0.89), ("style_separation", 2.9)]
)
def test_each_judged_gate_can_be_missed_alone(key: str, value: float) -> None:
    assert [gate.name for gate in missed(judged(**{key: value}), JUDGED)] == [NAMES[key]]


def test_a_loss_that_fell_is_nothing_forgotten() -> None:
    assert missed(judged(forgotten=-2.5), JUDGED) == []


@pytest.mark.parametrize("key", FIGURES)
def test_a_figure_that_is_not_there_misses_with_the_reason_that_the_session_gave(key: str) -> None:
    result = judged(**{key: None})
    assert [gate.got for gate in missed(result, JUDGED)] == ["not in the result"]
    result["evaluation"] = {"absent": {key: "the examples have no style tokens"}}
    (gate,) = missed(result, JUDGED)
    assert gate.got == "no figure: the examples have no style tokens"
    advice = advise(f"  {gate.name}: wanted {gate.wanted}, got {gate.got}")
    assert advice is not None
    assert "a gate's figure is missing" in advice.meaning


def test_a_first_phase_is_not_asked_what_it_forgot_though_the_whole_chain_has_the_gate() -> None:
    first = {**judged(forgotten=None), "lineage": []}
    assert missed(first, JUDGED) == []
    assert "forgotten" not in [gate.name for gate in check(first, JUDGED, PAD)]


@pytest.mark.parametrize(
    ("key", "words"),
    [("forgotten", "was forgotten"), ("eos_rate", "does not stop"), ("style_separation", "similar lengths")],
)
def test_a_missed_gate_comes_with_advice_of_its_own(key: str, words: str) -> None:
    (gate,) = missed(judged(**{key: 0.0 if key != "forgotten" else 9.0}), JUDGED)
    advice = advise(f"  {gate.name}: wanted {gate.wanted}, got {gate.got}")
    assert advice is not None
    assert words in advice.meaning


def test_limits_themselves_pass() -> None:
    gates = Gates(max_loss=0.5, min_loss_fall=0.75, min_token_accuracy=0.8)
    assert missed(GOOD, gates) == []


@given(st.floats(0.001, 10), st.floats(0.001, 10), st.floats(0.0, 1.0))
def test_the_fall_is_a_share_of_the_first_loss(first: float, last: float, limit: float) -> None:
    found = check(with_metrics(loss_first=first, loss_last=last), Gates(min_loss_fall=limit), PAD)
    gate = next(gate for gate in found if gate.name == "fall of the loss")
    assert gate.passed == ((first - last) / first >= limit)
