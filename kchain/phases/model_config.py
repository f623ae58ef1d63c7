"""The shape of a base model from its `config.json`, for the families whose layers kchain knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kchain.errors import InputError
from kchain.phases.models import Shape
from kchain.phases.vision import vision_sizes

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
# Far above any model; what is larger is a mistake in the file.
LARGEST = 10**7
HINT = "give the config.json of the base model"


@dataclass(frozen=True)
class Family:
    """What a family's code decides, and what it takes where its `config.json` is silent.

    Attributes:
        head: width of an attention head, None: `hidden_size / num_attention_heads`.
        usual: what the published files leave out.
    """

    biases: tuple[str, ...] = ()
    head: int | None = None
    tied: bool = False
    norms: int = 2
    qk_norm: bool = False
    usual: Mapping[str, int] = field(default_factory=dict)


# model_type -> what transformers 5 does there (models/<model_type>/modeling_*.py and configuration_*.py).
FAMILIES: dict[str, Family] = {
    "qwen2": Family(biases=("q_proj", "k_proj", "v_proj")),
    "qwen3": Family(head=128, qk_norm=True),
    "llama": Family(),
    "mistral": Family(),
    "gemma": Family(head=256, tied=True),
    "gemma2": Family(head=256, tied=True, norms=4),
    "gemma3_text": Family(
        head=256,
        tied=True,
        norms=4,
        qk_norm=True,
        usual={"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 262208},
    ),
    "qwen2_5_vl_text": Family(biases=("q_proj", "k_proj", "v_proj")),
    "qwen3_vl_text": Family(head=128, qk_norm=True),
}
# model_type of a model of several parts -> that of its text part, where the file does not say it.
TEXT_PARTS = {
    "qwen2_5_vl": "qwen2_5_vl_text",
    "qwen3_vl": "qwen3_vl_text",
    "gemma3": "gemma3_text",
    "mistral3": "mistral",
}


def read_shape(path: Path) -> Shape:
    """The shape of the model whose `config.json` this is.

    Raises:
        InputError: the file cannot be read, is no such configuration, or is of a model kchain does not know.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", HINT) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON: {error}", HINT) from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: holds no JSON object", HINT)
    try:
        return shape_of(config)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a `config.json` describes; of a model that also sees, its text part and the size of the other.

    Raises:
        ValueError: a key is missing or makes no sense, or the model is of a kind kchain does not know.
    """
    if "quantization_config" in config:
        raise ValueError("quantization_config: quantized on disk; give the model that it was made from")
    text = _text_part(config)
    family = _family(text)
    text = {**family.usual, **text}
    heads = _count(text, "num_attention_heads")
    hidden = _count(text, "hidden_size")
    kv_heads = _count(text, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise ValueError(f"num_attention_heads: {heads} is no multiple of num_key_value_heads, {kv_heads}")
    vision, linear = vision_sizes(_part(config, "vision_config"), hidden) if "vision_config" in config else (0, 0)
    return Shape(
        hidden=hidden,
        layers=_count(text, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        intermediate=_count(text, "intermediate_size"),
        vocab=_count(text, "vocab_size"),
        tied=_flag(text, "tie_word_embeddings", family.tied),
        head=_count(text, "head_dim", family.head or hidden // heads),
        biases=_biases(text, family),
        norms=family.norms,
        qk_norm=family.qk_norm,
        softcap=bool(text.get("attn_logit_softcapping")),
        vision=vision,
        vision_linear=linear,
    )


def _text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part of a configuration that describes the text decoder; older files have it at the top, beside the rest."""
    if "text_config" not in config and "vision_config" not in config:
        return config
    text = dict(_part(config, "text_config")) if "text_config" in config else dict(config)
    kind = config.get("model_type")
    if "text_config" not in config or "model_type" not in text:
        text["model_type"] = TEXT_PARTS.get(str(kind), kind)
    # The whole model's word on its head counts.
    if config.get("tie_word_embeddings") is not None:
        text["tie_word_embeddings"] = config["tie_word_embeddings"]
    return text


def _part(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = config[key]
    if not isinstance(part, dict):
        raise ValueError(f"{key}: is no object")
    return part


def _family(config: Mapping[str, Any]) -> Family:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"model_type: {kind!r} is not known; one of {', '.join(FAMILIES)}")
    return FAMILIES[kind]


def _biases(config: Mapping[str, Any], family: Family) -> tuple[str, ...]:
    attention = ATTENTION if _flag(config, "attention_bias", False) else family.biases
    return attention + (MLP if _flag(config, "mlp_bias", False) else ())


def _count(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if value is None:
        raise ValueError(f"{key}: is missing")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
        raise ValueError(f"{key}: {value!r} is no number from 1 to {LARGEST:,}")
    return value


def _flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise ValueError(f"{key}: {value!r} is neither true nor false")
    return value
