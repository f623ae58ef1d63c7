"""The gates that a plan shows: whoever reviews it must see each one that will be asked."""

from __future__ import annotations

import pytest

from kchain.phases import EvaluationGates, Gates, NoGates
from kchain.phases.plan import gate_words

LIMITS = [key for key in Gates.model_fields if key != "all_epochs"]


@pytest.mark.parametrize("key", LIMITS)
def test_every_gate_of_a_training_is_shown_with_its_limit(key: str) -> None:
    limit, shown = (2.5, "2.5") if key.startswith("max_") or "style" in key else (0.25, "25 %")
    without, words = gate_words(Gates(), first=False), gate_words(Gates(**{key: limit}), first=False)
    (added,) = set(words) - set(without)
    assert shown in added


def test_what_is_always_asked_is_always_shown() -> None:
    assert gate_words(Gates(), first=True) == ("all epochs ran", "the pad id is right and the adapter is sound")
    assert gate_words(NoGates(), first=False) == ("the pad id is right and it ended, on these very adapters",)


def test_a_first_phase_is_not_shown_what_it_is_not_asked() -> None:
    gates = Gates(max_forgotten=0.3)
    assert len(gate_words(gates, first=True)) + 1 == len(gate_words(gates, first=False))


def test_the_gates_of_an_evaluation_are_shown() -> None:
    words = gate_words(EvaluationGates(min_success_rate=0.5, better=True), first=False)
    assert words[:2] == (
        "the chain succeeds on 50 % of the questions or more",
        "the chain is shown to be better than the base model",
    )
