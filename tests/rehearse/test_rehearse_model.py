"""The stand-in for a base model is of its family, small, and something can be learned on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from kchain.demo.tokenizer import texts, write_tokenizer
from kchain.errors import InputError
from kchain.phases import ModelTable
from kchain.rehearse.model import KEYS, Base, fingerprint, write_stand_in

QWEN = ModelTable(source="qwen-lm/qwen2.5/transformers/0.5b-instruct/1")
OTHER = ModelTable(source="a/b/transformers/c/1", eos_token="<eot>", eos_id=3000)


def made(folder: Path, config: dict[str, Any], model: ModelTable = OTHER, tokenizer: Path | None = None) -> Path:
    folder.mkdir()
    write_stand_in(folder, Base(config, tokenizer, ""), model)
    return folder


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2", "gemma3_text", "olmo2"])
def test_each_family_is_its_own_architecture_and_learnable(tmp_path: Path, family: str) -> None:
    folder = made(tmp_path / "model", {"model_type": family})
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.model_type == family
    names = [name for name, _ in model.named_parameters()]
    assert any("q_proj" in name for name in names) and any("o_proj" in name for name in names)
    linear = [weight for name, weight in model.named_parameters() if weight.dim() == 2 and "proj" in name]
    assert all(side % 64 == 0 for weight in linear for side in weight.shape), "bitsandbytes quantizes blocks of 64"
    rows = model.get_input_embeddings().weight.detach().float().norm(dim=1)
    assert (rows > 1).sum() == len(AutoTokenizer.from_pretrained(folder)) - filler(folder)
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<eot>") == 3000


def filler(folder: Path) -> int:
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    return sum(token.startswith("<|unused_") for token in vocabulary)


def test_a_published_config_is_shrunk_and_otherwise_kept(tmp_path: Path) -> None:
    published = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "intermediate_size": 14336,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 3200,
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "torch_dtype": "bfloat16",
    }
    config = AutoModelForCausalLM.from_pretrained(made(tmp_path / "model", published)).config
    assert (config.num_hidden_layers, config.vocab_size, config.rms_norm_eps) == (2, 3200, 1e-05)
    assert config.tie_word_embeddings is False


def test_layer_types_of_many_layers_do_not_stand_in_the_way(tmp_path: Path) -> None:
    published = {"model_type": "gemma2", "layer_types": ["sliding_attention", "full_attention"] * 13}
    config = AutoModelForCausalLM.from_pretrained(made(tmp_path / "model", published)).config
    assert config.layer_types == ["sliding_attention", "full_attention"]


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3"])
def test_a_model_that_sees_keeps_its_vision_part(tmp_path: Path, family: str) -> None:
    config = {"model_type": family, **KEYS.get(family, {})}
    model = AutoModelForImageTextToText.from_pretrained(made(tmp_path / "model", config, QWEN))
    assert model.config.model_type == family and model.config.vision_config is not None
    ids = torch.arange(10)[None]
    assert model(input_ids=ids).logits.shape[:2] == (1, 10)
    names = [name for name, _ in model.named_parameters()]
    assert any("vision" in name or "visual" in name for name in names)


def test_a_qwen_keeps_its_special_ids_whatever_the_chain_says(tmp_path: Path) -> None:
    wrong = QWEN.model_copy(update={"eos_id": 151644})
    folder = made(tmp_path / "model", {"model_type": "qwen2", "vocab_size": 151936}, wrong)
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|im_end|>") == 151645
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == 151936


def test_another_familys_end_of_turn_keeps_the_id_that_the_chain_says(tmp_path: Path) -> None:
    chatml = ModelTable(source="a/b/transformers/c/1", eos_token="<|im_end|>", eos_id=32000)
    folder = made(tmp_path / "model", {"model_type": "mistral"}, chatml)
    assert AutoTokenizer.from_pretrained(folder).convert_tokens_to_ids("<|im_end|>") == 32000


def test_tokens_whose_rows_are_trained_are_in_a_made_up_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_stand_in(tmp_path / "model", Base({"model_type": "llama"}, None, ""), OTHER, ["<TERSE>", "<eot>"])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.encode("<TERSE>", add_special_tokens=False) == [3001]


def test_a_real_tokenizer_is_taken_as_it_is(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    write_tokenizer(texts(), real)
    (real / "weights.bin").write_bytes(b"not taken along")
    folder = made(tmp_path / "model", {"model_type": "qwen2"}, QWEN, real)
    assert (folder / "tokenizer.json").read_bytes() == (real / "tokenizer.json").read_bytes()
    assert not (folder / "weights.bin").exists()


def test_a_tokenizer_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="the tokenizer cannot be read"):
        made(tmp_path / "model", {"model_type": "qwen2"}, QWEN, real)


def test_a_family_that_transformers_does_not_know_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tiny model of the family never_heard_of"):
        made(tmp_path / "model", {"model_type": "never_heard_of"})


def test_a_model_that_is_quantized_on_disk_still_says_so(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", {"model_type": "llama", "quantization_config": {"bits": 4}})
    assert json.loads((folder / "config.json").read_text())["quantization_config"] == {"bits": 4}


def test_the_same_input_gives_the_same_model_and_another_tokenizer_another_one(tmp_path: Path) -> None:
    base = Base({"model_type": "llama"}, None, "")
    one, two = (made(tmp_path / name, base.config) for name in ("one", "two"))
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    assert fingerprint(base, OTHER) == fingerprint(base, OTHER) != fingerprint(base, QWEN)
    real = tmp_path / "real"
    shutil.copytree(one, real)
    before = fingerprint(Base(base.config, real, ""), OTHER)
    (real / "tokenizer_config.json").write_text("{}", encoding="utf-8")
    assert fingerprint(Base(base.config, real, ""), OTHER) != before
