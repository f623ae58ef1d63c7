"""A model's configuration in GGUF's words, for the architectures whose files were compared with llama.cpp's answers.

Key names and the meaning of each value are those of llama.cpp's own converter. What a key of the configuration would
change and llama.cpp would not see is refused: a file that answers differently is worse than none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kchain.errors import InputError

# model_type of config.json -> GGUF's architecture.
ARCHITECTURES = {"qwen2": "qwen2", "qwen3": "qwen3", "llama": "llama", "mistral": "llama"}
_CURE = "export it with --format safetensors, and convert that with llama.cpp's own converter"


@dataclass(frozen=True)
class Shape:
    """What the writer must know of a model.

    Attributes:
        architecture: GGUF's name of it.
        rows: rows of the embedding.
        heads, key_heads: of the attention.
        tied: the head is the embedding; a head in the file is a copy.
        keys: metadata without the architecture's prefix; int is uint32, float is float32.
        rope_factors: (head size / 2,) divisors of the rotation's frequencies, or None.
    """

    architecture: str
    layers: int
    rows: int
    heads: int
    key_heads: int
    tied: bool
    keys: Mapping[str, int | float]
    rope_factors: npt.NDArray[np.float32] | None


def read_shape(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json describes.

    Raises:
        InputError: llama.cpp would compute something else than transformers.
    """
    kind = config.get("model_type")
    architecture = ARCHITECTURES.get(str(kind))
    if architecture is None:
        raise _refusal(f"model_type {kind!r}; known are {', '.join(ARCHITECTURES)}")
    _check_maths(config)
    try:
        return _shape(architecture, config)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"config.json of the base model lacks or misspells {error}", "fetch the model anew") from None


def _refusal(what: str) -> InputError:
    return InputError(f"no GGUF for this model: {what}", _CURE)


def _check_maths(config: Mapping[str, Any]) -> None:
    if config.get("hidden_act", "silu") != "silu":
        raise _refusal(f"hidden_act is {config['hidden_act']!r}, not silu")
    window = config.get("sliding_window")
    slides = config.get("use_sliding_window", window is not None) and window is not None
    if slides and int(window or 0) < int(config.get("max_position_embeddings", 0)):
        raise _refusal(f"its attention slides over {window} tokens")
    if "sliding_attention" in (config.get("layer_types") or ()):
        raise _refusal("some of its layers have sliding attention")


def _shape(architecture: str, config: Mapping[str, Any]) -> Shape:
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    head_size = int(config.get("head_dim") or hidden // heads)
    theta, factors = _rope(architecture, config, head_size)
    keys: dict[str, int | float] = {
        "block_count": int(config["num_hidden_layers"]),
        "context_length": int(config["max_position_embeddings"]),
        "embedding_length": hidden,
        "feed_forward_length": int(config["intermediate_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": int(config.get("num_key_value_heads") or heads),
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": theta,
    }
    if architecture == "llama":
        keys |= {"vocab_size": int(config["vocab_size"]), "rope.dimension_count": head_size}
    if architecture == "qwen3" or head_size * heads != hidden:
        keys |= {"attention.key_length": head_size, "attention.value_length": head_size}
    return Shape(
        architecture=architecture,
        layers=int(config["num_hidden_layers"]),
        rows=int(config["vocab_size"]),
        heads=heads,
        key_heads=int(config.get("num_key_value_heads") or heads),
        tied=bool(config.get("tie_word_embeddings", False)),
        keys=keys,
        rope_factors=factors,
    )


def _rope(architecture: str, config: Mapping[str, Any], head_size: int) -> tuple[float, npt.NDArray[np.float32] | None]:
    """Base and divisors of the rotary embedding; transformers 5 keeps both in `rope_parameters`, 4 in two keys."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0)
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind == "default":
        return theta, None
    if kind == "llama3" and architecture == "llama":
        return theta, llama3_factors(theta, head_size, rope)
    raise _refusal(f"its positions are scaled by {kind!r}")


def llama3_factors(theta: float, head_size: int, rope: Mapping[str, Any]) -> npt.NDArray[np.float32]:
    """(head_size / 2,) by how much Llama 3.1 slows each frequency: long waves by `factor`, short ones not at all.

    Args:
        rope: factor, low_freq_factor, high_freq_factor, original_max_position_embeddings.
    """
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    waves = 2 * math.pi * theta ** (np.arange(0, head_size, 2) / head_size)
    turns = float(rope["original_max_position_embeddings"]) / waves
    smooth = np.clip((turns - low) / (high - low), 0.0, 1.0)
    divisors: npt.NDArray[np.float32] = (1.0 / ((1.0 - smooth) / factor + smooth)).astype(np.float32)
    return divisors
