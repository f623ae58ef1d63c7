"""Before and after: losses on every split, what was forgotten, and what is said where something cannot be judged."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runtime_tiny import (
    EOS_ID,
    make_root,
    mount,
    parameters,
    read_result,
    run_session,
    second_phase,
    write_jsonl,
)

from kchain.runtime import encode, evaluate, judge, splits
from kchain.runtime.chat import Chat
from kchain.runtime.contract import METRICS, VALIDATION
from kchain.runtime.failure import Stop
from kchain.runtime.judge import Subject
from kchain.runtime.samples import Case, Split

ASKS = [f"{ask} {n}" for n in range(8) for ask in ("list", "count")]
UNSEEN = 10**6  # no token has this id
STRONG = {
    "training__epochs": 12,
    "training__batch": 6,
    "training__learning_rate": 0.02,
    "data__max_examples": 16,
    "data__validation": 0.4,
}


@pytest.fixture(scope="module")
def roots(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Where a phase learned its answers, and another one learned other answers to the same questions."""
    before, roots = dict(os.environ), []
    for number, answers in enumerate((("ls", "wc -l"), ("no idea at all", "who knows that"))):
        root = make_root(tmp_path_factory.mktemp("conflict"), base)
        rows = [{"ask": ask, "answer": answers[ask.startswith("count")]} for ask in ASKS]
        write_jsonl(root / "temp" / "project" / "train.jsonl", rows)
        values = second_phase(**STRONG) if number else parameters(**STRONG)
        values["lora"].update(r=16, alpha=64, dropout=0.0, targets=["all-linear"])
        if number:
            mount(root, "notebooks/me/one", roots[0] / "working")
        os.environ["KCHAIN_KAGGLE_ROOT"] = str(root)
        run_session(values)
        roots.append(root)
    os.environ.clear()
    os.environ.update(before)
    return roots


@pytest.fixture(scope="module")
def conflict(roots: list[Path]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results of both."""
    return read_result(roots[0]), read_result(roots[1])


def split_of(result: dict[str, Any], phase: str) -> dict[str, Any]:
    (found,) = [one for one in result["evaluation"]["splits"] if one["phase"] == phase]
    return dict(found)


def test_a_phase_that_unlearns_an_earlier_one_says_how_much_was_forgotten(conflict: Any) -> None:
    first, second = conflict
    assert first["metrics"]["forgotten"] is None
    assert first["evaluation"]["absent"]["forgotten"] == "there is no phase before this one"
    assert [one["phase"] for one in second["evaluation"]["splits"]] == ["phase1", "phase2"]
    old = split_of(second, "phase1")
    assert second["metrics"]["forgotten"] == old["after"]["loss"] - old["before"]["loss"] > 0.5
    own = split_of(second, "phase2")
    assert own["after"]["loss"] < own["before"]["loss"] - 0.5, "its own data was learned"
    assert own["after"]["token_accuracy"] > own["before"]["token_accuracy"]


def test_a_phase_begins_where_the_one_before_it_ended(conflict: Any) -> None:
    ended, began = split_of(conflict[0], "phase1")["after"], split_of(conflict[1], "phase1")["before"]
    assert began["loss"] == pytest.approx(ended["loss"], rel=0.01), "but for the rounding of the merge to fp16"


def test_the_result_carries_the_figures_of_the_own_split_as_metrics(conflict: Any) -> None:
    for result in conflict:
        own, metrics = split_of(result, result["phase"]), result["metrics"]
        assert (metrics["eval_loss_before"], metrics["eval_loss"]) == (own["before"]["loss"], own["after"]["loss"])
        assert metrics["token_accuracy_before"] == own["before"]["token_accuracy"]
        assert metrics["token_accuracy"] == own["after"]["token_accuracy"]
        assert set(metrics) == {*METRICS, "all_epochs"}


def test_samples_stand_side_by_side_and_tell_whether_the_answer_ended_by_itself(conflict: Any) -> None:
    for result in conflict:
        samples, metrics = result["evaluation"]["samples"], result["metrics"]
        assert len(samples) == 2
        for sample in samples:
            assert sample["prompt"].endswith("<|im_start|>assistant\n")
            assert "<|im_end|>" not in sample["expected"]
            assert all(1 <= sample[side]["tokens"] <= 8 for side in ("before", "after"))
            assert sample["before"]["text"] != sample["after"]["text"]
        for side, name in (("before", "eos_rate_before"), ("after", "eos_rate")):
            assert metrics[name] == sum(sample[side]["ended"] for sample in samples) / 2
    assert conflict[0]["metrics"]["eos_rate_before"] == 0.0, "random weights never come to an end"
    assert conflict[0]["metrics"]["eos_rate"] > 0.0, "it learned to stop"


@pytest.fixture(scope="module")
def subject(base: Path, roots: list[Path]) -> Subject:
    """The first phase: random weights, and its adapter."""
    return Subject(base, parameters(), roots[0] / "working" / "adapter", None)


@pytest.fixture
def case(roots: list[Path], tokenizer: Any) -> Case:
    kept = splits.read(roots[0] / "working" / VALIDATION)
    own = Split("phase2", encode.encode_all(kept, Chat(tokenizer), 64).examples)
    earlier = [Split("phase1", own.examples)]
    return Case(own, earlier, [], False, {}, questions=2, tokens=4, batch=2, deadline=float("inf"))


def judged(subject: Subject, case: Case, tokenizer: Any) -> judge.Judgement:
    return judge.Judge(subject, case, EOS_ID, tokenizer.decode).judge()


def test_without_time_the_own_loss_is_there_and_the_rest_is_said_to_be_missing(
    subject: Subject, case: Case, tokenizer: Any, events: Any
) -> None:
    found = judged(subject, replace(case, deadline=0.0), tokenizer)
    assert sorted(found.metrics) == ["eval_loss", "token_accuracy"]
    assert set(found.evaluation["absent"].values()) == {judge.LATE, f"phase1: {judge.LATE}"}
    assert set(found.evaluation["absent"]) == set(METRICS[5:]) - {"token_accuracy"}
    (own,) = found.evaluation["splits"]
    assert own["before"] is None
    assert own["examples"] == 2 < len(case.own.examples), "one batch of them, and that is said"
    assert f"that of 2 of {len(case.own.examples)} examples" in events()[0]["message"]


def test_a_session_whose_run_goes_on_judges_only_what_its_result_must_have(
    subject: Subject, case: Case, tokenizer: Any, events: Any
) -> None:
    found = judged(subject, replace(case, goes_on=True), tokenizer)
    assert sorted(found.metrics) == ["eval_loss", "token_accuracy"]
    assert found.evaluation["absent"]["eos_rate"] == judge.GOES_ON
    assert not [event for event in events() if event["event"] == "warning"], "nothing is wrong"


def test_a_phase_without_a_split_of_its_own_still_measures_what_was_forgotten(
    subject: Subject, case: Case, tokenizer: Any
) -> None:
    found = judged(subject, replace(case, own=Split("phase2", [])), tokenizer)
    assert sorted(found.metrics) == ["forgotten"]
    assert {found.evaluation["absent"][name] for name in ("eval_loss", "eos_rate")} == {judge.NO_SPLIT}


def test_no_samples_are_drawn_where_none_are_wanted(subject: Subject, case: Case, tokenizer: Any) -> None:
    found = judged(subject, replace(case, questions=0), tokenizer)
    assert found.evaluation["absent"]["eos_rate"] == "samples.count is 0"
    assert found.evaluation["samples"] == []
    assert found.metrics["forgotten"] < 0, "it lowered the loss of both"


def test_an_earlier_split_that_cannot_be_judged_does_not_fail_a_trained_phase(
    subject: Subject, case: Case, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, events: Any
) -> None:
    stock, looks = evaluate.evaluate, iter(range(100))

    def fails_at_the_third(*args: Any) -> evaluate.Seen:
        if next(looks) == 2:
            raise Stop("the validation loss is nan", "look at it")
        return stock(*args)

    monkeypatch.setattr(evaluate, "evaluate", fails_at_the_third)
    case = replace(case, earlier=[*case.earlier, Split("phase0", case.own.examples)])
    found = judged(subject, case, tokenizer)
    nan = {"phase": "phase1", "reason": "the validation loss is nan", "kept": True}
    assert found.evaluation["not_judged"] == [nan]
    assert [split["phase"] for split in found.evaluation["splits"]] == ["phase0", "phase2"]
    assert found.evaluation["absent"]["forgotten"] == "phase1: the validation loss is nan", "that of phase0 says little"
    assert "forgotten" not in found.metrics
    assert any("forgotten of phase1 is not measured" in event.get("message", "") for event in events())
    assert found.metrics["eval_loss"] < found.metrics["eval_loss_before"]


def test_a_phase_that_kept_nothing_aside_does_not_hide_what_was_forgotten_of_others(
    subject: Subject, case: Case, tokenizer: Any
) -> None:
    adopted = splits.Missing("phase0", "it was trained elsewhere", kept=False)
    found = judged(subject, replace(case, not_judged=[adopted]), tokenizer)
    assert found.metrics["forgotten"] < 0 and "forgotten" not in found.evaluation["absent"]


def test_styles_that_no_prompt_has_are_said_to_be_missing_there(subject: Subject, case: Case, tokenizer: Any) -> None:
    found = judged(subject, replace(case, styles={"<A>": UNSEEN, "<B>": UNSEEN + 1}), tokenizer)
    assert found.evaluation["absent"]["style_separation"] == "no prompt of the validation split has a style"


def test_answers_that_cannot_be_drawn_do_not_fail_a_trained_phase(
    subject: Subject, case: Case, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, events: Any
) -> None:
    def no_memory(*args: Any, **kwargs: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(subject.model.get_base_model(), "generate", no_memory)
    found = judged(subject, case, tokenizer)
    assert "out of memory" in found.evaluation["absent"]["eos_rate"]
    assert found.metrics["forgotten"] is not None
    assert any("samples: not judged" in event.get("message", "") for event in events())


def test_the_model_is_the_adapted_one_again_after_it_was_looked_at_without_its_adapter(subject: Subject) -> None:
    ids = torch.arange(9)[None]
    with torch.no_grad():
        adapted = subject.model(ids).logits
        with subject.before():
            bare = subject.model(ids).logits
        again = subject.model(ids).logits
    assert torch.equal(adapted, again)
    assert not torch.allclose(adapted, bare, atol=1e-2)
