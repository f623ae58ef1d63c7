"""The shapes of base models before anything is downloaded: those of models.toml, and what a `config.json` tells."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from kchain.errors import InputError

FP32_BYTES = 4
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
# Far above any model; what is larger is a mistake in the file.
LARGEST = 10**7
HINT = "give the config.json of the base model"


@dataclass(frozen=True)
class Shape:
    """The shape of a dense decoder, from the `config.json` its authors published. What is left out is as in Qwen2.

    Attributes:
        hidden: width of the residual stream.
        heads, kv_heads: attention heads, and key/value heads.
        intermediate: width of the feed-forward layer.
        vocab: rows of the embedding.
        tied: whether the output head is the embedding.
        head: width of an attention head, None: `hidden // heads`.
        biases: the linear modules that have a bias.
        norms: norms of width `hidden` in a layer.
        qk_norm: whether queries and keys have a norm of their own.
        softcap: whether attention scores and logits go through a tanh (Gemma 2).
        vision: weights of a vision part, which is frozen, and `vision_linear` those of its linear modules.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    tied: bool
    head: int | None = None
    biases: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    norms: int = 2
    qk_norm: bool = False
    softcap: bool = False
    vision: int = 0
    vision_linear: int = 0

    @property
    def head_width(self) -> int:
        """Width of an attention head."""
        return self.head or self.hidden // self.heads

    @property
    def queries(self) -> int:
        """Width of the queries, and of what attention gives."""
        return self.head_width * self.heads

    @property
    def kv(self) -> int:
        """Width of the keys and of the values."""
        return self.head_width * self.kv_heads

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """The linear modules of one layer: (inputs, outputs)."""
        wide = self.intermediate
        return {
            "q_proj": (self.hidden, self.queries),
            "k_proj": (self.hidden, self.kv),
            "v_proj": (self.hidden, self.kv),
            "o_proj": (self.queries, self.hidden),
            "gate_proj": (self.hidden, wide),
            "up_proj": (self.hidden, wide),
            "down_proj": (wide, self.hidden),
        }

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear modules of all layers."""
        return self.layers * sum(inputs * outputs for inputs, outputs in self.linear.values())

    @property
    def embedding_parameters(self) -> int:
        """Weights of the embedding, and of the head where it is not the embedding."""
        return self.vocab * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """Parameters of the whole model: linear weights, biases, norms, embedding, head, and the vision part."""
        biases = sum(self.linear[module][1] for module in self.biases)
        norms = self.norms * self.hidden + (2 * self.head_width if self.qk_norm else 0)
        text = self.linear_parameters + self.layers * (biases + norms) + self.hidden + self.embedding_parameters
        return text + self.vision

    def chosen(self, targets: Iterable[str]) -> frozenset[str] | None:
        """The linear modules that get an adapter, None where this model has no module of a target's name."""
        modules = frozenset(self.linear)
        wanted = frozenset(targets)
        if wanted == {"all-linear"}:
            return modules
        return wanted if wanted <= modules else None

    def adapter_bytes(self, rank: int, targets: Iterable[str], rows: int = 0) -> int | None:
        """Bytes of a LoRA adapter's fp32 tensors, None where this model has no module of a target's name.

        Args:
            rows: tokens whose rows are trained, of the embedding and of the head where that is another.
        """
        chosen = self.chosen(targets)
        if chosen is None:
            return None
        modules = self.layers * rank * sum(sum(self.linear[module]) for module in chosen)
        return (modules + rows * self.hidden * (1 if self.tied else 2)) * FP32_BYTES


@dataclass(frozen=True)
class Family:
    """What a family's code decides, and what it takes where its `config.json` is silent: a row of models.toml."""

    biases: tuple[str, ...] = ()
    head: int | None = None
    tied: bool = False
    norms: int = 2
    qk_norm: bool = False
    usual: Mapping[str, int] = field(default_factory=dict)


_TABLE = tomllib.loads(files("kchain.phases").joinpath("models.toml").read_text(encoding="utf-8"))
FAMILIES = {name: Family(**{**row, "biases": tuple(row.get("biases", ()))}) for name, row in _TABLE["families"].items()}
TEXT_PARTS: dict[str, str] = _TABLE["text_parts"]


@cache
def known(model: str) -> dict[str, Shape]:
    """The shapes of a model by its sizes; none for a name that kchain does not know. `model`: as Kaggle calls it."""
    found = {}
    for row in (row for row in _TABLE["known"] if model in row["names"]):
        for size, text in row["sizes"].items():
            config: dict[str, Any] = {"text_config": {**row["config"], **text}}
            if "vision" in row:
                config["vision_config"] = row["vision"] | text.get("vision", {})
            found[size] = shape_of(config)
    return found


def model_shape(source: str) -> Shape | None:
    """The shape of `owner/model/framework/variation/version`, None where kchain does not know it.

    Quantized variations (awq, gptq) are not known: their files hold other tensors.
    """
    _, model, framework, variation, _ = source.lower().split("/")
    size = re.fullmatch(r"(\d+(?:\.\d+)?b)(?:-instruct|-base|-thinking)?", variation)
    return known(model).get(size[1]) if framework == "transformers" and size else None


def read_shape(path: Path) -> Shape:
    """The shape of the model whose `config.json` this is.

    Raises:
        InputError: the file cannot be read, is not such a configuration, or is of a model kchain does not know.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}", HINT) from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is not JSON: {error}", HINT) from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: is not a JSON object", HINT)
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
    kind = text.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise ValueError(f"model_type: {kind!r} is not known; one of {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    text = {**family.usual, **text}
    heads = _count(text, "num_attention_heads")
    hidden = _count(text, "hidden_size")
    kv_heads = _count(text, "num_key_value_heads", heads)
    if heads % kv_heads:
        raise ValueError(f"num_attention_heads: {heads} is not a multiple of num_key_value_heads, {kv_heads}")
    vision, linear = vision_sizes(_part(config, "vision_config"), hidden) if "vision_config" in config else (0, 0)
    attention = ATTENTION if _flag(text, "attention_bias", False) else family.biases
    return Shape(
        hidden=hidden,
        layers=_count(text, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        intermediate=_count(text, "intermediate_size"),
        vocab=_count(text, "vocab_size"),
        tied=_flag(text, "tie_word_embeddings", family.tied),
        head=_count(text, "head_dim", family.head or hidden // heads),
        biases=attention + (MLP if _flag(text, "mlp_bias", False) else ()),
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
        raise ValueError(f"{key}: is not an object")
    return part


def vision_sizes(config: Mapping[str, Any], text_hidden: int) -> tuple[int, int]:
    """Weights of the vision part, and of these such as 4-bit loading quantizes: those of linear modules.

    A vision transformer, frozen: it only takes memory. In each layer four attention matrices and a feed-forward part of
    two matrices (three where it is gated), patches and positions embedded, and what fits its result to the text's
    width. Biases and norms, half a percent, are not counted. Source: transformers 5, modeling files of qwen2_5_vl,
    qwen3_vl, gemma3, mistral3.

    Raises:
        ValueError: a key is missing or is not a number.
    """

    def count(key: str, default: int | None = None) -> int:
        return _count(config, key, default, "vision_config.")

    hidden, inner = count("hidden_size"), count("intermediate_size")
    layers = count("depth" if "depth" in config else "num_hidden_layers")
    gated = config.get("hidden_act") == "silu" or config.get("model_type") == "pixtral"
    # What makes text-wide vectors of patches; Qwen3-VL has one for each layer that it looks into besides.
    merged, width = hidden * count("spatial_merge_size", 1) ** 2, count("out_hidden_size", text_hidden)
    looks = config.get("deepstack_visual_indexes") or ()
    merger = hidden * width if merged == hidden else merged * (merged + width) * (1 + len(looks))
    linear = layers * hidden * (4 * hidden + (3 if gated else 2) * inner) + merger
    channels, patch = count("in_channels" if "in_channels" in config else "num_channels", 3), count("patch_size", 14)
    patches = channels * patch**2 * count("temporal_patch_size", 1)
    positions = 0  # rows of an embedding; none where positions are rotations
    if "num_position_embeddings" in config:
        positions = count("num_position_embeddings")
    elif config.get("model_type") == "siglip_vision_model":
        positions = (count("image_size", 224) // patch) ** 2
    return linear + (patches + positions) * hidden, linear


def _count(config: Mapping[str, Any], key: str, default: int | None = None, part: str = "") -> int:
    value = config.get(key)
    value = default if value is None else value
    if value is None:
        raise ValueError(f"{part}{key}: is missing")
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
        raise ValueError(f"{part}{key}: {value!r} is not a number from 1 to {LARGEST:,}")
    return value


def _flag(config: Mapping[str, Any], key: str, default: bool) -> bool:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, bool):
        raise ValueError(f"{key}: {value!r} is neither true nor false")
    return value
