"""The attention that a model computes, as its architecture and the GPU want it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.integrations import sdpa_attention

from kchain.runtime import model as model_module
from kchain.runtime.encode import Encoded
from kchain.runtime.model import load_base
from kchain.runtime.train import prepare


def small(config: Any, **options: Any) -> Any:
    return config(
        vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, **options,
    )  # fmt: skip


def example(length: int) -> Encoded:
    ids = np.arange(3, 3 + length, dtype=np.int32)
    return Encoded(ids, ids)


@pytest.mark.parametrize("capability, grouped", [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_t4_gets_no_grouped_heads_and_the_same_result(
    capability: tuple[int, int], grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdpa_attention, "use_gqa_in_sdpa", sdpa_attention.use_gqa_in_sdpa)
    model = Qwen2ForCausalLM(small(Qwen2Config)).eval()
    collate, stock = prepare(model, 2), torch.nn.functional.scaled_dot_product_attention
    assert collate.packed
    seen: list[tuple[int, bool, bool]] = []

    def spy(query: Any, key: Any, value: Any, **options: Any) -> Any:
        seen.append((key.shape[1], bool(options.get("enable_gqa")), options.get("attn_mask") is None))
        return stock(query, key, value, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    with torch.no_grad():
        before = model(**collate([example(8)])).loss
        model_module.keep_fused(capability)
        after = model(**collate([example(8)])).loss
    assert seen == [(2, True, True), (2, True, True) if grouped else (4, False, True)]
    assert torch.allclose(before, after)


def test_a_soft_cap_is_computed_whatever_the_version_of_transformers(tmp_path: Path) -> None:
    Gemma2ForCausalLM(small(Gemma2Config, head_dim=8)).save_pretrained(tmp_path / "capped")
    Qwen2ForCausalLM(small(Qwen2Config)).save_pretrained(tmp_path / "plain")
    capped, plain = (load_base(tmp_path / name, "fp32", "none") for name in ("capped", "plain"))
    assert capped.config._attn_implementation == "eager"
    assert plain.config._attn_implementation == "sdpa"
