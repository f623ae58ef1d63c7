"""What is known of base models before anything is downloaded: the shapes of the Qwen2.5 family."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

FP32_BYTES = 4


@dataclass(frozen=True)
class Shape:
    """The shape of a dense Qwen2 decoder, from the `config.json` its authors published.

    Attributes:
        hidden: width of the residual stream.
        heads, kv_heads: attention heads, and key/value heads, of `hidden // heads` each.
        intermediate: width of the feed-forward layer.
        vocab: rows of the embedding.
        tied: whether the output head is the embedding.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    tied: bool

    @property
    def kv(self) -> int:
        """Width of the keys and of the values."""
        return self.hidden // self.heads * self.kv_heads

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """The linear modules of one layer: (inputs, outputs)."""
        wide = self.intermediate
        return {
            "q_proj": (self.hidden, self.hidden),
            "k_proj": (self.hidden, self.kv),
            "v_proj": (self.hidden, self.kv),
            "o_proj": (self.hidden, self.hidden),
            "gate_proj": (self.hidden, wide),
            "up_proj": (self.hidden, wide),
            "down_proj": (wide, self.hidden),
        }

    @property
    def parameters(self) -> int:
        """Parameters of the whole model: weights, biases of q, k and v, two norms a layer and one at the end."""
        weights = sum(inputs * outputs for inputs, outputs in self.linear.values())
        layer = weights + self.hidden + 2 * self.kv + 2 * self.hidden
        return self.layers * layer + self.hidden + self.vocab * self.hidden * (1 if self.tied else 2)

    def adapter_bytes(self, rank: int, targets: Iterable[str]) -> int | None:
        """Bytes of a LoRA adapter's fp32 tensors, None where a target is no module of this model."""
        modules = self.linear
        chosen = set(targets)
        if not chosen <= modules.keys():
            return None
        return self.layers * rank * sum(sum(modules[target]) for target in chosen) * FP32_BYTES


# Qwen/Qwen2.5-*-Instruct, config.json; the Coder models of a size have the same shape.
QWEN25: dict[str, Shape] = {
    "0.5b": Shape(896, 24, 14, 2, 4864, 151936, True),
    "1.5b": Shape(1536, 28, 12, 2, 8960, 151936, True),
    "3b": Shape(2048, 36, 16, 2, 11008, 151936, True),
    "7b": Shape(3584, 28, 28, 4, 18944, 152064, False),
    "14b": Shape(5120, 48, 40, 8, 13824, 152064, False),
}


def model_shape(source: str) -> Shape | None:
    """The shape of `owner/model/framework/variation/version`, None where kchain has not got it.

    Quantized variations (awq, gptq) are not known: their files hold other tensors.
    """
    _, model, framework, variation, _ = source.lower().split("/")
    size = re.fullmatch(r"(\d+(?:\.\d+)?b)(?:-instruct|-base)?", variation)
    if framework != "transformers" or model not in {"qwen2.5", "qwen2.5-coder"} or size is None:
        return None
    return QWEN25.get(size[1])
