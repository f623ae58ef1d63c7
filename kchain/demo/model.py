"""A tiny Qwen2 base model with random weights from a fixed seed, scaled so that a LoRA adapter can really learn on it.

What makes it learnable although every weight is random: the rows of the embedding (which is the head, too) have one
direction in common and the filler rows are zero, so the model tells used tokens from unused ones; rows have length
sqrt(2), so what attention adds can outweigh the token a position stands on; and the last norm is large enough for the
logits to become certain. Numpy alone makes it: the same bytes wherever it runs, and no torch to import.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kchain.demo.tokenizer import EOS_ID, FIRST_SPECIAL, SPECIALS, texts, write_tokenizer

Array = npt.NDArray[np.float32]

SEED = 1
HIDDEN, LAYERS, HEADS, KEY_HEADS, INNER = 96, 2, 4, 2, 128
# As in Qwen2.5-0.5B: more rows than the tokenizer has tokens.
ROWS = 151936
# Found by trying: see the figures in the tiny chain's phase files.
FEED_FORWARD_SCALE = 0.5
LAST_NORM = 4.0


def write_model(folder: Path) -> None:
    """Write the base model and its tokenizer into `folder`: about 38 MB, the shape of a Kaggle model's folder."""
    used = write_tokenizer(texts(), folder)
    write_safetensors(folder / "model.safetensors", dict(_tensors(used)))
    config = json.dumps(_configuration(), indent=2)
    (folder / "config.json").write_text(config, encoding="utf-8")
    generation = {"bos_token_id": FIRST_SPECIAL, "eos_token_id": [EOS_ID, FIRST_SPECIAL]}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2), encoding="utf-8")


def write_safetensors(path: Path, tensors: dict[str, Array]) -> None:
    """Write fp32 arrays as bf16, the type Qwen publishes: eight bytes of header length, a JSON header, the numbers."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + 2 * tensor.size
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            # The upper half of each fp32, rounded to nearest (ties up; no value here is near infinity).
            bits = np.ascontiguousarray(tensor).view(np.uint32)
            file.write(((bits + np.uint32(0x8000)) >> np.uint32(16)).astype("<u2").tobytes())


def _tensors(used: int) -> Iterator[tuple[str, Array]]:
    """The weights by name, in a fixed order of drawing.

    Args:
        used: entries of the vocabulary that text can produce.
    """
    draw = np.random.default_rng(SEED)
    yield "model.embed_tokens.weight", _embedding(draw, used)
    for layer in range(LAYERS):
        for name, tensor in _layer(draw):
            yield f"model.layers.{layer}.{name}", tensor
    yield "model.norm.weight", np.full(HIDDEN, LAST_NORM, np.float32)


def _embedding(draw: np.random.Generator, used: int) -> Array:
    """(ROWS, HIDDEN): used rows are a shared unit direction plus a random unit vector across it, all others zero."""
    live = [*range(used), *range(FIRST_SPECIAL, FIRST_SPECIAL + len(SPECIALS))]
    shared = draw.standard_normal(HIDDEN)
    shared /= np.linalg.norm(shared)
    own = draw.standard_normal((len(live), HIDDEN))
    own -= np.outer(own @ shared, shared)
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    rows: Array = np.zeros((ROWS, HIDDEN), np.float32)
    rows[live] = own + shared
    return rows


def _layer(draw: np.random.Generator) -> Iterator[tuple[str, Array]]:
    keys = HIDDEN // HEADS * KEY_HEADS
    for name, width in (("q", HIDDEN), ("k", keys), ("v", keys)):
        yield f"self_attn.{name}_proj.weight", _linear(draw, width, HIDDEN)
        yield f"self_attn.{name}_proj.bias", np.zeros(width, np.float32)
    yield "self_attn.o_proj.weight", _linear(draw, HIDDEN, HIDDEN)
    yield "mlp.gate_proj.weight", _linear(draw, INNER, HIDDEN)
    yield "mlp.up_proj.weight", _linear(draw, INNER, HIDDEN)
    yield "mlp.down_proj.weight", _linear(draw, HIDDEN, INNER) * np.float32(FEED_FORWARD_SCALE)
    yield "input_layernorm.weight", np.ones(HIDDEN, np.float32)
    yield "post_attention_layernorm.weight", np.ones(HIDDEN, np.float32)


def _linear(draw: np.random.Generator, outputs: int, inputs: int) -> Array:
    """(outputs, inputs), scaled so that a vector keeps its length on average."""
    values: Array = draw.standard_normal((outputs, inputs)).astype(np.float32)
    return values / np.float32(np.sqrt(inputs))


def _configuration() -> dict[str, object]:
    """The content of config.json, with the keys Qwen2.5's own has."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": FIRST_SPECIAL,
        "eos_token_id": EOS_ID,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INNER,
        "max_position_embeddings": 32768,
        "max_window_layers": LAYERS,
        "model_type": "qwen2",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_HEADS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": ROWS,
    }
