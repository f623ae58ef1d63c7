"""Examples in one row do not see each other, and are learned from as if each stood alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from kchain.runtime.batches import Collator
from kchain.runtime.encode import IGNORED, Encoded
from kchain.runtime.loss import can_pack, spare_logits

WORDS = 211
SIZES = {
    "vocab_size": WORDS,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
FAMILIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 16}),
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 6}),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM, {"head_dim": 16, "sliding_window": 6}),
}


def build(family: str, attention: str = "sdpa") -> Any:
    config, model, own = FAMILIES[family]
    torch.manual_seed(3)
    return model(config(**SIZES, **own, attn_implementation=attention)).eval()


def examples(*lengths: int) -> list[Encoded]:
    chance = np.random.default_rng(5)
    made = []
    for length in lengths:
        ids = chance.integers(3, WORDS, length).astype(np.int32)
        labels = ids.copy()
        labels[: length // 3] = IGNORED
        made.append(Encoded(ids, labels))
    return made


def test_a_packed_row_holds_every_token_once_and_positions_that_begin_again() -> None:
    first, second = examples(4, 3)
    row = Collator(2, keep=False, packed=True)([first, second])
    assert set(row) == {"input_ids", "position_ids", "labels"}, "an attention mask would hide the borders"
    assert row["input_ids"].tolist() == [[*first.ids, *second.ids]]
    assert row["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2]]
    assert row["labels"].tolist() == [[IGNORED, *first.labels[1:], IGNORED, *second.labels[1:]]]
    assert second.labels[1] != IGNORED, "the examples themselves are left as they were"


def test_no_example_learns_the_first_token_of_the_next_one() -> None:
    text = [Encoded(example.ids, example.ids.copy()) for example in examples(4, 3)]
    for packed in (True, False):
        batch = Collator(2, keep=True, packed=packed)(text)
        assert int((batch["shift_labels"] != IGNORED).sum()) == 3 + 2
    packed_row = Collator(2, keep=True, packed=True)(text)
    assert packed_row["logits_to_keep"].tolist() == [0, 1, 2, 4, 5]
    assert packed_row["shift_labels"].tolist() == [[*text[0].ids[1:], *text[1].ids[1:]]]
    assert text[0].labels[0] == text[0].ids[0], "the caller's labels are not written to"


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_in_a_row_are_those_of_each_example_alone(family: str, attention: str, checkpointing: bool) -> None:
    model, batch = build(family, attention), examples(9, 17, 5)
    alone = torch.cat([model(torch.from_numpy(example.ids).long()[None]).logits[0] for example in batch])
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.train()
    row = Collator(2, keep=False, packed=True)(batch)
    together = model(input_ids=row["input_ids"], position_ids=row["position_ids"], use_cache=False).logits[0]
    assert (together - alone).abs().max() < 1e-5
    assert can_pack(model)


def test_gradients_of_a_row_are_the_sum_of_those_of_each_example_alone() -> None:
    found = []
    for packed in (True, False):
        model = build("qwen2")
        assert model.config.use_cache, "with a cache transformers would overlook the borders"
        spare_logits(model)
        batches = [examples(9, 17, 5)] if packed else [[example] for example in examples(9, 17, 5)]
        for batch in batches:
            model(**Collator(2, keep=True, packed=packed)(batch), num_items_in_batch=20).loss.backward()
        found.append(model.model.layers[0].self_attn.q_proj.weight.grad)
    assert (found[0] - found[1]).abs().max() < 1e-6


def test_the_commonest_trap_really_is_one() -> None:
    """An all-ones mask beside the same position ids lets examples see each other: what the runtime refuses."""
    model, batch = build("qwen2"), examples(9, 17)
    row = Collator(2, keep=False, packed=True)(batch)
    inputs = {"input_ids": row["input_ids"], "position_ids": row["position_ids"], "use_cache": False}
    right, wrong = model(**inputs).logits, model(**inputs, attention_mask=torch.ones_like(row["input_ids"])).logits
    assert torch.allclose(right[0, :9], wrong[0, :9], atol=1e-5)
    assert (right[0, 9:] - wrong[0, 9:]).abs().max() > 1e-2


def test_a_model_whose_examples_would_see_each_other_is_not_packed() -> None:
    torch.manual_seed(3)
    recurrent = MambaForCausalLM(MambaConfig(vocab_size=WORDS, hidden_size=32, num_hidden_layers=2))
    without_positions = BloomForCausalLM(BloomConfig(vocab_size=WORDS, hidden_size=32, n_layer=2, n_head=4))
    assert not can_pack(recurrent)
    assert not can_pack(without_positions)


def test_a_model_that_ignores_where_an_example_begins_is_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("qwen2")
    inner = model.model.forward
    monkeypatch.setattr(model.model, "forward", lambda *args, position_ids=None, **rest: inner(*args, **rest))
    assert not can_pack(model)
    assert can_pack(build("qwen2"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_trial_tells_the_same_in_half_precision(dtype: torch.dtype) -> None:
    assert can_pack(build("qwen2").to(dtype))
