"""What is known of base models before anything is downloaded: what a shape tells, and those of the Qwen2.5 family."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from kchain.phases.vision import vision_sizes

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
