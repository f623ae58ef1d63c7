"""The shape of a base model from its `config.json`, for the families whose layers kchain knows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.errors import InputError
from kchain.phases.models import Shape

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
    """

    biases: tuple[str, ...] = ()
    head: int | None = None
    tied: bool = False
    norms: int = 2
    qk_norm: bool = False


# model_type -> what transformers 5 does there (models/<model_type>/modeling_*.py and configuration_*.py).
FAMILIES: dict[str, Family] = {
    "qwen2": Family(biases=("q_proj", "k_proj", "v_proj")),
    "qwen3": Family(head=128, qk_norm=True),
    "llama": Family(),
    "mistral": Family(),
    "gemma": Family(head=256, tied=True),
    "gemma2": Family(head=256, tied=True, norms=4),
    "gemma3_text": Family(head=256, tied=True, norms=4, qk_norm=True),
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
    """The shape that a `config.json` describes.

    Raises:
        ValueError: a key is missing or makes no sense, or the model is of a kind kchain does not know.
    """
    family = _family(config)
    heads = _count(config, "num_attention_heads")
    hidden = _count(config, "hidden_size")
    kv_heads = _count(config, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise ValueError(f"num_attention_heads: {heads} is no multiple of num_key_value_heads, {kv_heads}")
    head = _count(config, "head_dim", family.head or hidden // heads)
    return Shape(
        hidden=hidden,
        layers=_count(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        intermediate=_count(config, "intermediate_size"),
        vocab=_count(config, "vocab_size"),
        tied=_flag(config, "tie_word_embeddings", family.tied),
        head=head,
        biases=_biases(config, family),
        norms=family.norms,
        qk_norm=family.qk_norm,
        softcap=bool(config.get("attn_logit_softcapping")),
    )


def _family(config: Mapping[str, Any]) -> Family:
    kind = config.get("model_type")
    if "text_config" in config or "vision_config" in config:
        raise ValueError(f"{kind} has more parts than its text decoder; kchain plans the memory of text models alone")
    if "quantization_config" in config:
        raise ValueError("quantization_config: quantized on disk; give the model that it was made from")
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
