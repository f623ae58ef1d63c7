"""The size of a model's vision part, which is frozen and only takes memory, from the `vision_config` of its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def vision_sizes(config: Mapping[str, Any], text_hidden: int) -> tuple[int, int]:
    """Weights of the vision part, and of these such as 4-bit loading quantizes: those of linear modules.

    A vision transformer: in each layer four attention matrices and a feed-forward part of two matrices (three where it
    is gated), patches and positions embedded, and what fits its result to the text's width. Biases and norms, half a
    percent, are not counted. Source: transformers 5, modeling files of qwen2_5_vl, qwen3_vl, gemma3, mistral3.

    Raises:
        ValueError: a key is missing or is no number.
    """
    hidden, inner = _number(config, "hidden_size"), _number(config, "intermediate_size")
    layers = _number(config, "depth" if "depth" in config else "num_hidden_layers")
    gated = config.get("hidden_act") == "silu" or config.get("model_type") == "pixtral"
    matrices = 3 if gated else 2
    body = layers * hidden * (4 * hidden + matrices * inner)
    linear = body + _merger(config, hidden, text_hidden)
    channels = _number(config, "in_channels" if "in_channels" in config else "num_channels", 3)
    patch = _number(config, "patch_size", 14)
    patches = channels * patch**2 * _number(config, "temporal_patch_size", 1) * hidden
    return linear + patches + _positions(config, patch) * hidden, linear


def _merger(config: Mapping[str, Any], hidden: int, text_hidden: int) -> int:
    """What makes text-wide vectors of patches; Qwen3-VL has one for each layer that it looks into besides."""
    merged = hidden * _number(config, "spatial_merge_size", 1) ** 2
    width = _number(config, "out_hidden_size", text_hidden)
    looks = config.get("deepstack_visual_indexes") or ()
    if merged == hidden:
        return hidden * width
    return merged * (merged + width) * (1 + len(looks))


def _positions(config: Mapping[str, Any], patch: int) -> int:
    """Rows of an embedding of positions; none where positions are rotations."""
    if "num_position_embeddings" in config:
        return _number(config, "num_position_embeddings")
    if config.get("model_type") == "siglip_vision_model":
        return (_number(config, "image_size", 224) // patch) ** 2
    return 0


def _number(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 10**7:
        raise ValueError(f"vision_config.{key}: {value!r} is no number from 1 to {10**7:,}")
    return value
