"""What is known of base models before anything is downloaded: what a shape tells, and those of the Qwen2.5 family."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kchain.errors import InputError

# The size of a model's vision part, which is frozen and only takes memory, from the `vision_config` of its config.


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


FP32_BYTES = 4


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
        """The linear modules that get an adapter, None where a target is no module of this model."""
        modules = frozenset(self.linear)
        wanted = frozenset(targets)
        if wanted == {"all-linear"}:
            return modules
        return wanted if wanted <= modules else None

    def adapter_bytes(self, rank: int, targets: Iterable[str], rows: int = 0) -> int | None:
        """Bytes of a LoRA adapter's fp32 tensors, None where a target is no module of this model.

        Args:
            rows: tokens whose rows are trained, of the embedding and of the head where that is another.
        """
        chosen = self.chosen(targets)
        if chosen is None:
            return None
        modules = self.layers * rank * sum(sum(self.linear[module]) for module in chosen)
        return (modules + rows * self.hidden * (1 if self.tied else 2)) * FP32_BYTES


# Qwen/Qwen2.5-*-Instruct, config.json; the Coder models of a size have the same shape.
QWEN25: dict[str, Shape] = {
    "0.5b": Shape(896, 24, 14, 2, 4864, 151936, True),
    "1.5b": Shape(1536, 28, 12, 2, 8960, 151936, True),
    "3b": Shape(2048, 36, 16, 2, 11008, 151936, True),
    "7b": Shape(3584, 28, 28, 4, 18944, 152064, False),
    "14b": Shape(5120, 48, 40, 8, 13824, 152064, False),
}


def _qwen3(
    hidden: int, layers: int, heads: int, inner: int, tied: bool, eyes: Mapping[str, Any] | None = None
) -> Shape:
    vision, linear = vision_sizes(eyes, hidden) if eyes else (0, 0)
    return Shape(
        hidden, layers, heads, 8, inner, 151936, tied, head=128, biases=(), qk_norm=True,
        vision=vision, vision_linear=linear,
    )  # fmt: skip


# Qwen/Qwen3-*, config.json; the base models of a size have the same shape.
QWEN3: dict[str, Shape] = {
    "0.6b": _qwen3(1024, 28, 16, 3072, True),
    "1.7b": _qwen3(2048, 28, 16, 6144, True),
    "4b": _qwen3(2560, 36, 32, 9728, True),
    "8b": _qwen3(4096, 36, 32, 12288, False),
    "14b": _qwen3(5120, 40, 40, 17408, False),
    "32b": _qwen3(5120, 64, 64, 25600, False),
}
# Qwen/Qwen3-VL-*-Instruct, config.json: the text part is Qwen3's; 24 vision layers 1024 wide, in the 8B 27 of 1152.
_SMALL: dict[str, Any] = {
    "depth": 24,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}
_LARGE: dict[str, Any] = {
    "depth": 27,
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "deepstack_visual_indexes": [8, 16, 24],
}
_EYES: dict[str, Any] = {
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "patch_size": 16,
    "num_position_embeddings": 2304,
}
QWEN3_VL: dict[str, Shape] = {
    "2b": _qwen3(2048, 28, 16, 6144, True, _EYES | _SMALL),
    "4b": _qwen3(2560, 36, 32, 9728, True, _EYES | _SMALL),
    "8b": _qwen3(4096, 36, 32, 12288, False, _EYES | _LARGE),
}
# Kaggle's name of a model -> shapes by size.
KNOWN = {"qwen2.5": QWEN25, "qwen2.5-coder": QWEN25, "qwen-3": QWEN3, "qwen-3-vl": QWEN3_VL}


def model_shape(source: str) -> Shape | None:
    """The shape of `owner/model/framework/variation/version`, None where kchain has not got it.

    Quantized variations (awq, gptq) are not known: their files hold other tensors.
    """
    _, model, framework, variation, _ = source.lower().split("/")
    size = re.fullmatch(r"(\d+(?:\.\d+)?b)(?:-instruct|-base|-thinking)?", variation)
    if framework != "transformers" or size is None:
        return None
    return KNOWN.get(model, {}).get(size[1])


# The shape of a base model from its `config.json`, for the families whose layers kchain knows.

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
