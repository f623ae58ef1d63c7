"""The shape of a model from its config.json; the oracle is transformers itself, on an empty model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kchain.errors import InputError
from kchain.phases.models import known, read_shape, shape_of

QWEN25 = known("qwen2.5")

SMALL = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 176, "vocab_size": 500,
}  # fmt: skip
# config.json of Qwen/Qwen2.5-0.5B-Instruct, what matters here.
QWEN = {
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_attention_heads": 14,
    "num_hidden_layers": 24, "num_key_value_heads": 2, "tie_word_embeddings": True, "vocab_size": 151936,
    "torch_dtype": "bfloat16", "rope_theta": 1000000.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "name, more",
    [
        ("Qwen2", {}),
        ("Qwen2", {"tie_word_embeddings": True}),
        ("Qwen3", {"head_dim": 32}),
        ("Qwen3", {"attention_bias": True}),
        ("Llama", {}),
        ("Llama", {"attention_bias": True, "mlp_bias": True}),
        ("Mistral", {"head_dim": 24}),
        ("Gemma", {"head_dim": 16}),
        ("Gemma", {}),
        ("Gemma2", {"head_dim": 32}),
        ("Gemma3Text", {"head_dim": 32}),
    ],
    ids=str,
)
def test_every_family_has_as_many_parameters_as_transformers_makes(name: str, more: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{name}Config")(**SMALL, **more, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    shape = shape_of(config.to_dict())
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    inner = [module for module_name, module in model.named_modules() if module_name.endswith("_proj")]
    assert shape.linear_parameters == sum(module.weight.numel() for module in inner)
    assert shape.softcap is (name == "Gemma2")


TEXT = SMALL | {"head_dim": 16, "pad_token_id": 0}
EYES = {"hidden_size": 64, "intermediate_size": 128, "patch_size": 4}
SIGLIP = EYES | {"num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 32, "vision_use_head": False}


@pytest.mark.parametrize(
    "name, eyes",
    [
        ("Qwen3VL", EYES | {"depth": 2, "num_heads": 4, "out_hidden_size": 64, "deepstack_visual_indexes": [0]}),
        ("Qwen2_5_VL", EYES | {"depth": 2, "num_heads": 4, "out_hidden_size": 64}),
        ("Gemma3", SIGLIP),
        ("Mistral3", EYES | {"num_hidden_layers": 8, "num_attention_heads": 4, "image_size": 32}),
    ],
)
def test_a_model_that_also_sees_is_its_text_part_and_a_frozen_rest(name: str, eyes: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    text = TEXT | ({"model_type": "mistral"} if name == "Mistral3" else {})
    config = getattr(transformers, f"{name}Config")(text_config=text, vision_config=eyes)
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(config)
    shape = shape_of(config.to_dict())
    inner = [each for place, each in model.named_modules() if "language_model" in place and place.endswith("_proj")]
    assert shape.linear_parameters == sum(module.weight.numel() for module in inner)
    parts = ("visual", "vision", "multi_modal")
    rest = sum(weight.numel() for place, weight in model.named_parameters() if any(part in place for part in parts))
    assert shape.vision == pytest.approx(rest, rel=0.1)
    assert shape.parameters - shape.vision == sum(weight.numel() for weight in model.parameters()) - rest


def test_a_published_config_with_its_text_part_at_the_top_is_read_too() -> None:
    """Qwen2.5-VL's, as it was published."""
    eyes = {"depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "patch_size": 14,
            "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 3584}  # fmt: skip
    shape = shape_of(QWEN | {"model_type": "qwen2_5_vl", "vision_config": eyes})
    assert shape.linear == QWEN25["0.5b"].linear
    assert shape.vision > 0.5e9


def test_gemma_3_s_published_text_part_leaves_out_what_is_usual() -> None:
    """google/gemma-3-4b-it: 4.3 billion parameters."""
    text = {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34}
    eyes = {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "model_type": "siglip_vision_model",
            "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14}  # fmt: skip
    shape = shape_of({"model_type": "gemma3", "text_config": text, "vision_config": eyes})
    assert shape.parameters == pytest.approx(4.3e9, rel=0.01)


def test_a_published_config_gives_the_shape_of_the_table() -> None:
    shape = shape_of(QWEN)
    known = QWEN25["0.5b"]
    assert shape.parameters == known.parameters == 494_032_768
    assert shape.linear == known.linear


def test_an_old_llama_without_key_value_heads_has_as_many_as_heads() -> None:
    config = {key: value for key, value in QWEN.items() if key != "num_key_value_heads"} | {"model_type": "llama"}
    assert shape_of(config).kv == 896


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "mixtral"}, "model_type: 'mixtral' is not known; one of qwen2, qwen3, llama"),
        ({"model_type": None}, "model_type: None is not known"),
        ({"model_type": ["qwen2"]}, "is not known"),
        ({"hidden_size": None}, "hidden_size: is missing"),
        ({"hidden_size": "896"}, "hidden_size: '896' is not a number"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: 0 is not a number"),
        ({"vocab_size": True}, "vocab_size: True is not a number"),
        ({"intermediate_size": 10**30}, "is not a number from 1 to 10,000,000"),
        ({"num_key_value_heads": 3}, "num_attention_heads: 14 is not a multiple of num_key_value_heads, 3"),
        ({"num_attention_heads": 1000, "num_key_value_heads": 1}, "head_dim: 0 is not a number"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings: 'yes' is neither true nor false"),
        ({"quantization_config": {"bits": 4}}, "quantized on disk"),
        ({"model_type": "gemma3", "text_config": []}, "text_config: is not an object"),
        ({"model_type": "gemma3", "text_config": {}}, "hidden_size: is missing"),
        ({"model_type": "llama4", "text_config": {"model_type": "llama4_text"}}, "'llama4_text' is not known"),
        ({"model_type": "qwen3_vl", "text_config": QWEN, "vision_config": {}}, "vision_config.hidden_size: is missing"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_not_known_is_refused_by_key(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(QWEN | change))
    with pytest.raises(InputError) as told:
        read_shape(path)
    assert message in told.value.message
    assert str(path) in told.value.message


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff\xfe", b"[" * 100_000], ids=lambda value: repr(value[:3]))
def test_a_file_that_is_no_configuration_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a JSON object|is not JSON"):
        read_shape(path)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_shape(path)
