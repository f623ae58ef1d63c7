"""What a phase leaves open with "auto": it is the fastest that fits, the effective batch stays, and it is said why."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kchain.errors import InputError
from kchain.phases import ACCELERATORS, Phase, load_chain
from kchain.phases.memory import Setting
from kchain.phases.models import known
from kchain.phases.plan import training_plan
from kchain.phases.settle import WORDS, batches, choose, known_lengths
from kchain.phases.time import batch_seconds, sessions, step_seconds, usable_seconds
from kchain.runtime.contract import MOST_RESERVE, RESERVE
from kchain.templates.parameters import parameters_of_phase

QWEN25 = known("qwen2.5")

T4, A100, CPU = (ACCELERATORS[name] for name in ("NvidiaTeslaT4", "NvidiaTeslaA100", "cpu"))
FREE = frozenset(WORDS.values())
USUAL = Setting(
    shape=QWEN25["1.5b"], precision="fp16", quantization="none", batch=2, accumulation=8, length=1024, rank=16,
    targets=("q_proj", "k_proj", "v_proj", "o_proj"), optimizer="paged_adamw_8bit", checkpointing=True,
)  # fmt: skip
AUTO = "[training]\n" + "".join(
    f'{key} = "auto"\n' for key in ("batch", "checkpointing", "quantization", "max_length", "step_seconds")
)
HUB = '{ name = "hub", huggingface = "h/f", fields = { prompt = "p", completion = "c" } }'
OWN = '{ name = "own", file = "own.jsonl", fields = { prompt = "p", completion = "c" } }'


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["0.5b", "1.5b", "7b", "14b"]),
    st.sampled_from([T4, A100]),
    st.integers(64, 4096),
    st.sets(st.sampled_from(sorted(FREE)), min_size=1),
)
def test_no_setting_that_fits_is_faster(size: str, machine: Any, length: int, free: set[str]) -> None:
    asked = replace(USUAL, shape=QWEN25[size], length=length)
    found = choose(asked, free, machine, length / 4).setting
    assert found.batch * found.accumulation == 16
    assert all(getattr(found, name) == getattr(asked, name) for name in FREE - free if name != "batch")
    if found.memory.total > machine.memory:
        return
    for other in batches(found) if "batch" in free else [found]:
        for checkpointing in (False, True) if "checkpointing" in free else (found.checkpointing,):
            rival = replace(other, checkpointing=checkpointing)
            if rival.memory.total <= 0.9 * machine.memory:
                assert step_seconds(found, machine, length / 4) <= 1.05 * step_seconds(rival, machine, length / 4)


def test_what_costs_time_is_tried_before_what_costs_precision_and_that_before_what_cuts_text() -> None:
    small = choose(replace(USUAL, shape=QWEN25["3b"]), FREE, T4, 256).setting
    assert (small.quantization, small.length) == ("none", 1024)
    large = choose(replace(USUAL, shape=QWEN25["7b"]), FREE, T4, 256).setting
    assert (large.quantization, large.length) == ("nf4", 1024)
    long = choose(replace(USUAL, shape=QWEN25["14b"], length=32768), FREE, T4, 256)
    assert long.setting.quantization == "nf4" and long.setting.length < 32768
    assert long.setting.memory.total <= T4.memory
    assert any("32,768 do not fit" in reason for reason in long.reasons)


def test_where_nothing_fits_the_choice_is_what_takes_least() -> None:
    found = choose(replace(USUAL, shape=replace(QWEN25["14b"], layers=400)), FREE, T4, 256)
    assert found.reasons == ("batch, checkpointing, length, quantization: nothing fits; this takes least",)
    assert (found.setting.batch, found.setting.quantization, found.setting.checkpointing) == (1, "nf4", True)


def test_on_a_cpu_nothing_is_chosen_by_a_memory_that_nobody_knows() -> None:
    found = choose(USUAL, {"batch"}, CPU, 256)
    assert found.setting == USUAL
    assert "on a CPU no memory is planned" in found.reasons[0]


def test_short_examples_wait_for_the_kernels_and_long_ones_for_the_arithmetic() -> None:
    assert batch_seconds(USUAL, A100, 16) == batch_seconds(USUAL, A100, 8) == pytest.approx(28 * 0.005)
    assert batch_seconds(USUAL, A100, 4096) > 1.9 * batch_seconds(USUAL, A100, 2048)


def test_a_session_trains_a_little_shorter_than_it_lasts() -> None:
    assert usable_seconds(9 * 3600) == 9 * 3600 - MOST_RESERVE
    assert usable_seconds(600) == 600 * (1 - RESERVE)
    assert usable_seconds(120) == 80, "a short session, too, has time to judge what it learned"
    assert [sessions(hours, 9 * 3600) for hours in (0, 8.7, 8.8, 17.5, 17.6)] == [1, 1, 2, 2, 3]


def phase_of(root: Path, source: str = HUB, model: str = "qwen-lm/qwen2.5/transformers/7b-instruct/1") -> Phase:
    (root / "phases").mkdir()
    chain = '[chain]\nname = "demo"\nowner = "someone"\n'
    (root / "kchain.toml").write_text(f'{chain}[model]\nsource = "{model}"\n{AUTO}')
    text = f'title = "Part one"\ndescription = "x"\n[data]\nsources = [{source}]\n'
    (root / "phases" / "one.toml").write_text(text)
    return load_chain(root).phase("one")


def test_auto_is_settled_before_anything_is_rendered_and_the_plan_says_why(tmp_path: Path) -> None:
    phase = phase_of(tmp_path)
    training = phase.training
    assert (training.quantization, training.max_length) == ("nf4", 1024)
    assert training.batch * training.accumulation == 16
    chain = load_chain(tmp_path)
    planned = training_plan(chain, "one")
    assert planned.fits and not planned.advice
    words = " ".join(planned.choices)
    for part in ("nf4: in fp16", "batch ", "checkpointing ", "length 1,024: the usual value", "step_seconds "):
        assert part in words, part
    rendered = parameters_of_phase(chain, "one", "kaggle", ())["training"]
    assert rendered["batch"] == training.batch
    assert "auto" not in rendered.values()
    assert training.step_seconds == pytest.approx(max(5, 3 * planned.seconds), rel=0.1)


def test_the_length_of_the_project_s_own_files_is_counted(tmp_path: Path) -> None:
    long, short = {"p": "x" * 500, "c": "y" * 200}, {"p": "x", "c": "y"}
    (tmp_path / "own.jsonl").write_text(f"{json.dumps(long)}\n{json.dumps(short)}\n")
    phase = phase_of(tmp_path, OWN)
    assert phase.training.max_length == 256, "700 characters are about 200 tokens"
    assert "has about 200 tokens" in phase.choices[0]
    assert "of about 100 tokens, counted" in training_plan(load_chain(tmp_path), "one").seconds_reason


def test_lines_end_where_json_lines_do_and_empty_ones_count_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text('{"p": "x", "c": "y"}\n')
    data = phase_of(tmp_path, OWN).data
    row = json.dumps({"p": "x\u2028y\u2029z\x85", "c": "y"}, ensure_ascii=False)
    assert known_lengths(data, {"own.jsonl": f"{row}\n\n{row}\n"}) == [2, 2]


def test_a_model_that_is_not_known_gets_the_usual_values(tmp_path: Path) -> None:
    phase = phase_of(tmp_path, model="a/b/c/d/1")
    training = phase.training
    assert (training.batch, training.checkpointing, training.quantization, training.max_length) == (
        2,
        True,
        "none",
        1024,
    )
    assert "does not know the model's shape" in phase.choices[0]
    assert training.step_seconds == 60, "nobody knows: long enough for any"


def test_a_word_that_is_not_auto_is_refused(tmp_path: Path) -> None:
    phase_of(tmp_path)
    path = tmp_path / "kchain.toml"
    path.write_text(path.read_text().replace('batch = "auto"', 'batch = "many"'))
    with pytest.raises(InputError, match="training.batch: a whole number, or \"auto\"; found 'many'"):
        load_chain(tmp_path)


def test_a_planned_step_that_is_far_too_short_is_told(tmp_path: Path) -> None:
    phase_of(tmp_path)
    path = tmp_path / "kchain.toml"
    path.write_text(path.read_text().replace('step_seconds = "auto"', "step_seconds = 0.5"))
    (told,) = training_plan(load_chain(tmp_path), "one").advice
    assert 'beyond 2 x step_seconds = 1 s: set step_seconds = "auto"' in told


def test_a_setting_that_would_be_faster_is_proposed_and_really_is(tmp_path: Path) -> None:
    phase_of(tmp_path, model="qwen-lm/qwen2.5/transformers/0.5b-instruct/1")
    path = tmp_path / "kchain.toml"
    path.write_text(path.read_text().replace(AUTO, ""))
    slow = training_plan(load_chain(tmp_path), "one")
    (told,) = slow.advice
    assert told.startswith("checkpointing = false: about ")
    path.write_text(path.read_text() + "[training]\ncheckpointing = false\n")
    fast = training_plan(load_chain(tmp_path), "one")
    assert fast.seconds <= 0.8 * slow.seconds and fast.fits and not fast.advice
