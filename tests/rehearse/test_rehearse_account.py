"""What a rehearsal says of itself is true: nothing is called rehearsed that something else stood in for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kchain.orchestrator.journal.state import PhaseFailure, Result
from kchain.phases import load_chain
from kchain.phases.init import make_project
from kchain.rehearse.account import not_rehearsed, rehearsed
from kchain.rehearse.model import Base
from kchain.rehearse.run import Rehearsal, Rehearsed
from kchain.rehearse.settings import Difference, Stand

RESULT = Result(1, "kernel", "a/b", "adapter", False, "ab" * 32, 9, (), 151645, {"steps": 4}, {}, 9.0, "runs", 0.0)
FAILURE = PhaseFailure("h", 1, "PhaseFailed", "phase2 version 1 failed: out of luck", "have more", "{}", 0.0)
INVENTED = Stand("phase1", "codealpaca", "invented", "rehearsal/x", "x.jsonl", "instruction, output")
SECOND = Stand("phase2", "bash-commands", "invented", "rehearsal/y", "y.jsonl", "prompt, response")


@pytest.fixture
def done(tmp_path: Path) -> Rehearsal:
    """Two phases of the shipped chain, rehearsed with nothing but stand-ins."""
    make_project(tmp_path, "qwen-t4", "someone")
    outcomes = tuple(
        Rehearsed(name, True, "c0de" * 16, (Difference("a", 1, 2),), RESULT) for name in ("phase1", "phase2")
    )
    base = Base({"model_type": "qwen2"}, None, "")
    return Rehearsal(load_chain(tmp_path), ("phase1", "phase2"), base, (INVENTED, SECOND), outcomes, tmp_path / "work")


def test_invented_rows_are_called_invented(done: Rehearsal) -> None:
    text = "\n".join(not_rehearsed(done))
    assert "INVENTED" in text and "phase1/codealpaca, phase2/bash-commands" in text
    assert "sahil2801/CodeAlpaca-20k" in text
    assert "columns" not in "\n".join(rehearsed(done))


def test_a_sample_of_the_users_is_called_theirs(done: Rehearsal) -> None:
    yours = replace(INVENTED, kind="yours", words="samples/a.jsonl")
    told = replace(done, stands=(yours, SECOND))
    assert "samples of yours: samples/a.jsonl (phase1/codealpaca)" in "\n".join(rehearsed(told))
    text = "\n".join(not_rehearsed(told))
    assert "for phase2/bash-commands (" in text and "sahil2801/CodeAlpaca-20k" in text


def test_an_optional_source_that_failed_is_told_and_not_claimed(done: Rehearsal) -> None:
    yours = replace(INVENTED, kind="yours", words="samples/a.jsonl")
    skipping = replace(done.outcomes[0], skipped=(("codealpaca", "no row has the column input"),))
    told = replace(done, stands=(yours, SECOND), outcomes=(skipping, done.outcomes[1]))
    assert "samples/a.jsonl" not in "\n".join(rehearsed(told))
    assert "phase1/codealpaca, which failed and is optional: no row has the column input" in not_rehearsed(told)


def test_a_made_up_tokenizer_is_not_rehearsed_and_a_real_one_is(done: Rehearsal) -> None:
    assert "its tokenizer and chat template: none was found" in "\n".join(not_rehearsed(done))
    assert "tokenizer" not in "\n".join(rehearsed(done))
    real = replace(done, base=Base({"model_type": "qwen2"}, Path("x"), "the cache of somebody"))
    assert "chat template from the cache of somebody: <|im_end|> is 151645" in "\n".join(rehearsed(real))
    assert "tokenizer" not in "\n".join(not_rehearsed(real))


def test_gates_machine_and_service_are_named(done: Rehearsal) -> None:
    text = "\n".join(not_rehearsed(done))
    assert "the gates max_loss, min_token_accuracy" in text
    assert "NvidiaTeslaT4: fp16 arithmetic" in text
    assert "kaggle.com: " in text and "quota" in text
    assert "phase1 3,681, phase2 4,566 planned" in text


def test_processes_that_share_the_gpus_of_a_machine_are_named(done: Rehearsal) -> None:
    assert "processes" not in "\n".join(not_rehearsed(done))
    two = replace(done.outcomes[0], differences=(Difference("training.processes", 2, 1),))
    assert "training in 2 processes, a GPU each" in "\n".join(not_rehearsed(replace(done, outcomes=(two,))))


def test_a_chain_for_this_machine_speaks_of_no_kaggle(done: Rehearsal) -> None:
    local = replace(done, chain=replace(done.chain, target="local"))
    assert "kaggle.com" not in "\n".join(not_rehearsed(local))
    assert "set to refuse what Kaggle refuses" not in "\n".join(rehearsed(local))


def test_merging_and_four_bits_are_claimed_only_where_they_happened(done: Rehearsal) -> None:
    first = replace(done, outcomes=done.outcomes[:1], names=("phase1",))
    assert "merge" not in "\n".join(rehearsed(first)) and "4 bits" not in "\n".join(rehearsed(first))
    assert "before phase2" in "\n".join(rehearsed(done))


def test_of_a_phase_that_failed_nothing_is_claimed(done: Rehearsal) -> None:
    broken = replace(done.outcomes[1], result=None, failure=FAILURE)
    failed = replace(done, outcomes=(done.outcomes[0], broken), names=("phase1", "phase2", "phase3"))
    assert "phase2" not in "\n".join(rehearsed(failed))
    assert not_rehearsed(failed)[0] == "phase2, phase3: a phase failed, see below"
    alone = replace(failed, outcomes=(replace(broken, phase="phase1"),), names=("phase1",))
    assert rehearsed(alone) == [] and not_rehearsed(alone) == ["phase1: a phase failed, see below"]


def test_a_failure_comes_with_its_advice_and_the_way_on(done: Rehearsal) -> None:
    failed = replace(done, outcomes=(replace(done.outcomes[0], failure=FAILURE),))
    error = failed.error()
    assert error is not None and error.exit_code == 1
    assert "out of luck" in error.message
    assert error.hint == "have more\nafter a change: kchain rehearse phase1"
    assert done.error() is None
