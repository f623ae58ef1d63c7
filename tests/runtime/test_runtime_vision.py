"""Vision-language models learn text: the language part alone is trained, the vision part stays as it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from runtime_tiny import (
    EOS_ID,
    TEMPLATE,
    Events,
    ancestor,
    build_tokenizer,
    make_root,
    mount,
    parameters,
    read_result,
    rounded,
    run_session,
    source,
)
from safetensors.torch import load_file
from transformers import (
    AutoModelForImageTextToText,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from kchain.runtime.adapters import Adapter
from kchain.runtime.contract import WEIGHTS
from kchain.runtime.merge import merge
from kchain.runtime.model import add_lora, load_base

# As the templates of some vision-language models: a content is a list of parts, and nothing else.
TYPED = TEMPLATE.replace(
    "{{ m['content'] }}",
    "{% for part in m['content'] %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}",
)
ALL = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
LORA = parameters(lora__targets=["all-linear"])["lora"]
IMAGES = {
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
}


def build(kind: str, folder: Path, tied: bool = True) -> Path:
    """A tiny model that sees, with random fp16 weights; its file names differ from its class's for qwen2."""
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    text = {
        "vocab_size": 151936, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 16,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "eos_token_id": EOS_ID,
        "rope_parameters": {**rope, "mrope_interleaved": True} if kind == "qwen3" else rope,
    }  # fmt: skip
    sight: dict[str, Any] = {"depth": 2, "num_heads": 2, "hidden_size": 64 if kind == "qwen2" else 32, "patch_size": 4}
    torch.manual_seed(7)
    options = {"text_config": text, "tie_word_embeddings": tied, **IMAGES}
    if kind == "qwen2":
        sight |= {"embed_dim": 32, "mlp_ratio": 2}
        model: Any = Qwen2VLForConditionalGeneration(Qwen2VLConfig(vision_config=sight, **options))
    else:
        sight |= {"out_hidden_size": 64, "intermediate_size": 48, "deepstack_visual_indexes": [0]}
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(vision_config=sight, **options))
    model.model.language_model.norm.weight.data *= 20.0
    model.half().save_pretrained(folder)
    tokenizer = build_tokenizer()
    tokenizer.chat_template = TYPED
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["qwen2", pytest.param("qwen3", marks=pytest.mark.long)])
def seeing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(request.param, tmp_path_factory.mktemp(request.param))


def values(**changes: Any) -> dict[str, Any]:
    tokens = {"added": ["<STYLE_TERSE>"], "trained": []}
    styled = source(style="<STYLE_TERSE>")
    return parameters(**{"lora": LORA, "tokens": tokens, "data__sources": [styled], **changes})


def logits(model: Any, result: dict[str, Any]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.tensor([result["probe"]["prompt_ids"]])).logits
    return found[0, -1, :8]


@pytest.mark.slow
def test_two_phases_train_the_language_part_and_stock_peft_loads_both(
    seeing: Path, tmp_path: Path, events: Events
) -> None:
    first = make_root(tmp_path / "first", seeing)
    os.environ["KCHAIN_KAGGLE_ROOT"] = str(first)
    run_session(values())
    told = {event["event"]: event for event in events()}
    before = load_file(seeing / "model.safetensors")
    assert told["model"]["frozen_vision"] == sum("visual" in name for name in before) > 20
    assert 0 < told["model"]["share"] < 0.01
    assert told["batches"]["logits_spared"] is True
    assert "list file" in told["examples"]["first"]["text"], "the content is there, as typed parts"
    folder = first / "working" / "adapter"
    saved = load_file(folder / WEIGHTS)
    assert sorted({name.split(".")[-3] for name in saved if "lora_A" in name}) == ALL
    assert not any("visual" in name for name in saved)
    assert any("trainable_tokens" in name for name in saved)
    result = read_result(first)
    base = AutoModelForImageTextToText.from_pretrained(seeing, dtype=torch.float32)
    probe = torch.tensor(result["probe"]["logits"])
    assert torch.allclose(logits(PeftModel.from_pretrained(base, folder), result), probe, rtol=0, atol=1e-5)

    second = make_root(tmp_path / "second", seeing)
    mount(second, "notebooks/me/one", first / "working")
    os.environ["KCHAIN_KAGGLE_ROOT"] = str(second)
    run_session(values(phase="phase2", lineage=[ancestor("phase1", "me/one")], tokens={"added": [], "trained": []}))
    result = read_result(second)
    base = AutoModelForImageTextToText.from_pretrained(seeing, dtype=torch.float32)
    merged = rounded(PeftModel.from_pretrained(base, folder).merge_and_unload())
    assert result["metrics"]["eos_rate"] is not None, "it answered"
    assert [one["phase"] for one in result["evaluation"]["splits"]] == ["phase1", "phase2"]
    model = PeftModel.from_pretrained(merged, second / "working" / "adapter")
    assert torch.allclose(logits(model, result), torch.tensor(result["probe"]["logits"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", ["qwen2", "qwen3"])
def test_the_merge_changes_the_language_part_alone_and_loads_as_the_class_that_sees(
    kind: str, tied: bool, tmp_path: Path
) -> None:
    from kchain.runtime.tokenizer import TokenRow

    base = build(kind, tmp_path / "base", tied)
    model = add_lora(load_base(base, "fp32", "none"), LORA, 1, [TokenRow("<S>", 151665, (151665,))])
    for name, weight in model.named_parameters():
        assert ("lora_" in name or "trainable_tokens" in name) == weight.requires_grad, name
        if "lora_B" in name or "trainable_tokens" in name:
            weight.data.normal_(std=0.05)
    model.save_pretrained(tmp_path / "a", save_embedding_layers=False)
    adapter = Adapter("phase1", "kernel", "me/one", tmp_path / "a", "", 0)
    folder = merge(base, [adapter], LORA, tmp_path / "merged")
    before, after = load_file(base / "model.safetensors"), load_file(folder / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        name
        for name in before
        if "visual" not in name and name.endswith(("proj.weight", "embed_tokens.weight", "lm_head.weight"))
    }
    found, told = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    stock = PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32), tmp_path / "a"
    )
    expected = rounded(stock.merge_and_unload()).state_dict()
    for name, weight in found.state_dict().items():
        assert torch.equal(weight, expected[name]), name
