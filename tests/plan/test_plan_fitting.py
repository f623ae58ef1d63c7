"""What is proposed where a setting does not fit: it keeps the effective batch, and it really fits."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kchain.phases import ACCELERATORS
from kchain.phases.fit import OPTIONS, PHASE_FILE, SettingPlan, refusal
from kchain.phases.fit import setting_plan as work_out
from kchain.phases.memory import Setting
from kchain.phases.models import known

QWEN25 = known("qwen2.5")

T4 = ACCELERATORS["NvidiaTeslaT4"]
USUAL = Setting(
    shape=QWEN25["7b"], precision="fp16", quantization="nf4", batch=2, accumulation=8, length=2048, rank=16,
    targets=("q_proj", "k_proj", "v_proj", "o_proj"), optimizer="paged_adamw_8bit", checkpointing=True,
)  # fmt: skip


def answer(setting: Setting, machine: Any = T4) -> SettingPlan:
    return work_out(setting, machine, ["fp16: no bf16"], 512)


def test_what_fits_says_what_stays_free() -> None:
    found = answer(USUAL)
    assert found.fits is True
    assert found.available == T4.memory
    assert found.reasons[0] == "fp16: no bf16"
    assert found.reasons[-1] == "fits: 6.5 GiB of 14.6 GiB are left"
    assert found.as_dict()["setting"]["batch"] == 2


def test_the_answer_says_how_long_a_step_takes() -> None:
    assert "time: about 16 s a step of 16 examples of 512 tokens on average, a guess" in answer(USUAL).reasons
    alone = replace(T4, gpus=1)
    assert answer(USUAL, alone).seconds == pytest.approx(2 * 0.9 * answer(USUAL).seconds)


def test_a_model_with_capped_scores_keeps_them_and_says_so() -> None:
    capped = replace(USUAL, shape=replace(USUAL.shape, softcap=True))
    assert any("this model caps them" in reason for reason in answer(capped).reasons)
    assert any("220 positions x 152,064 words at a time" in reason for reason in answer(USUAL).reasons)


def test_a_cpu_is_neither_enough_nor_too_small() -> None:
    found = answer(replace(USUAL, precision="fp32", quantization="none"), ACCELERATORS["cpu"])
    assert (found.available, found.fits) == (None, None)
    assert "a CPU: see that it has" in found.reasons[-1]


KEPT = replace(USUAL, checkpointing=False, length=512)


def test_a_larger_batch_is_halved_with_the_accumulation_doubled() -> None:
    found = answer(replace(KEPT, batch=4, accumulation=4))
    assert found.fits is False
    assert "--batch 2 --accumulation 8 (" in found.reasons[-1]


def test_a_batch_that_cannot_be_halved_is_divided_so_that_the_product_stays() -> None:
    text = refusal(replace(KEPT, batch=9, accumulation=5, length=1024), T4, PHASE_FILE)
    assert "batch = 1, accumulation = 45" in text


def test_kept_activations_are_cured_by_checkpointing() -> None:
    text = refusal(replace(KEPT, length=2048), T4, OPTIONS)
    assert "--checkpointing (8.1 GiB), or --length " in text
    assert "--precision" not in text, "they are in 4 bits already"
    one = replace(KEPT, batch=1, accumulation=16, length=6000)
    assert "--batch" not in refusal(one, T4, OPTIONS), "there is no batch below 1"


def test_weights_that_are_too_large_are_quantized() -> None:
    text = refusal(replace(USUAL, quantization="none", length=1024), T4, PHASE_FILE)
    assert text.endswith('set quantization = "nf4" (7.0 GiB)')
    assert "a step takes 15.9 GiB of a GPU that has 14.6 GiB" in text
    fp32 = refusal(replace(USUAL, quantization="none", precision="fp32", length=512), T4, PHASE_FILE)
    assert fp32.startswith("the base model alone takes 28.4 GiB")


def test_where_one_change_is_not_enough_they_are_added_up() -> None:
    heavy = replace(USUAL, quantization="none", checkpointing=False, batch=8, accumulation=2)
    assert "set --batch 1 --accumulation 16 --checkpointing --precision nf4 (" in _in_options(heavy)


def test_where_nothing_is_enough_the_smallest_machine_that_is_is_named() -> None:
    shape = replace(QWEN25["14b"], layers=96)
    text = _in_options(replace(USUAL, shape=shape))
    assert "even --batch 1 --accumulation 16 --length 64 takes" in text
    assert text.endswith("take a smaller model, or NvidiaL4 (22.0 GiB)")
    huge = refusal(replace(USUAL, shape=replace(shape, layers=10_000)), T4, OPTIONS)
    assert huge.endswith("take a smaller model")
    least = replace(USUAL, shape=shape, batch=1, length=8)
    assert ": even this takes" in refusal(least, T4, OPTIONS)


def _in_options(setting: Setting) -> str:
    found = answer(setting)
    assert found.fits is False
    return found.reasons[-1]


def typed(words: str) -> dict[str, Any]:
    """The fields of a Setting that a proposal in options changes."""
    found: dict[str, Any] = {}
    for name in ("batch", "accumulation", "length"):
        if match := re.search(rf"--{name} (\d+)", words):
            found[name] = int(match[1])
    if "--checkpointing" in words:
        found["checkpointing"] = True
    if "--precision nf4" in words:
        found["quantization"] = "nf4"
    return found


@settings(max_examples=60)
@given(
    st.sampled_from(list(QWEN25.values())),
    st.sampled_from(["none", "nf4"]),
    st.integers(1, 24),
    st.integers(1, 16),
    st.integers(8, 6000),
    st.booleans(),
)
def test_every_proposal_fits_and_keeps_the_effective_batch(
    shape: Any, quantization: str, batch: int, accumulation: int, length: int, checkpointing: bool
) -> None:
    asked = replace(
        USUAL, shape=shape, quantization=quantization, batch=batch, accumulation=accumulation, length=length,
        checkpointing=checkpointing,
    )  # fmt: skip
    found = answer(asked)
    assert found.fits is (asked.memory.total <= T4.memory)
    if found.fits or ": set " not in found.reasons[-1]:
        return
    for proposal in found.reasons[-1].partition(": set ")[2].split(", or "):
        changed = replace(asked, **typed(proposal))
        assert changed != asked
        assert changed.memory.total <= T4.memory
        assert changed.batch * changed.accumulation == batch * accumulation


@pytest.mark.parametrize("words", [PHASE_FILE, OPTIONS], ids=["phase file", "options"])
def test_both_ways_of_writing_name_the_same_fields(words: dict[str, str]) -> None:
    assert set(words) == {"batch", "checkpointing", "quantization", "length"}
    assert all(hasattr(USUAL, name) for name in words)
