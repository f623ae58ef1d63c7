"""A GGUF file from a model's folder, tensor by tensor: host memory holds one tensor of the model at a time.

First the file, then what it says of the model (`GgufShape`: architectures whose files were compared with llama.cpp's
own answers) and of its tokenizer (`Words`: byte-level BPE whose way of splitting text llama.cpp has under a name). What
llama.cpp would compute or split otherwise than transformers is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kchain.errors import InputError
from kchain.uses.companions import chat_template, read_json

if TYPE_CHECKING:
    from gguf import GGUFWriter

Array = npt.NDArray[Any]

TYPES = ("f16", "q8_0")
# model_type of config.json -> GGUF's architecture.
ARCHITECTURES = {"qwen2": "qwen2", "qwen3": "qwen3", "llama": "llama", "mistral": "llama"}
# The published tokenizers' regular expressions -> (llama.cpp's name, whether whole words of the vocabulary come first).
SPLITS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": ("qwen2", False),
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": ("llama-bpe", True),
}
# Markers for the training's answer mask: they write nothing, and llama.cpp's template reader does not know them.
_MARKERS = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
# Rows that are quantized at a time: 16 MB of fp32 at a width of 4096.
_ROWS = 1024


def write_gguf(model: Path, out: Path, kind: str, about: Mapping[str, str], pad_id: int) -> None:
    """Write the fp16 model in `model` (as `merged` makes it) as one GGUF file.

    Matrices are written in `kind`, vectors in fp32; a matrix whose rows are no whole blocks of the kind stays fp16.

    Args:
        kind: one of TYPES.
        about: more keys of text, such as general.name.
        pad_id: the id that ends an answer and pads.

    Raises:
        InputError: llama.cpp would not compute what transformers computes, or the folder holds no such model.
    """
    from gguf import GGML_QUANT_VERSION, GGUFWriter, LlamaFileType

    config = read_json(model / "config.json")
    shape = read_shape(config)
    words = read_words(model, shape.rows)
    writer = GGUFWriter(None, shape.architecture)
    writer.add_type("model")
    for key, text in about.items():
        writer.add_string(key, text)
    writer.add_file_type({"f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    for key, value in shape.keys.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{shape.architecture}.{key}", value)  # type: ignore[arg-type,unused-ignore]
    _add_words(writer, words, pad_id, config.get("bos_token_id"))
    tensors = list(_tensors(model, shape))
    for name, _, dimensions, _ in tensors:
        _add_tensor(writer, name, dimensions, kind)
    writer.write_header_to_file(out)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, file, dimensions, source in tensors:
        writer.write_tensor_data(_converted(_read(file, source, name, shape), _type_of(dimensions, kind)))
    writer.close()


def _add_words(writer: GGUFWriter, words: Words, pad_id: int, bos: object) -> None:
    # Not gguf.SpecialVocab: it takes the ids from the tokenizer's own configuration in place of the chain's, leaves
    # add_bos_token out where it is false, and keeps the template's markers.
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.split)
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.kinds)
    writer.add_token_merges(words.merges)
    writer.add_eos_token_id(pad_id)
    writer.add_pad_token_id(pad_id)
    if isinstance(bos, int):
        writer.add_bos_token_id(bos)
    writer.add_add_bos_token(words.begins)
    if words.template:
        writer.add_chat_template(words.template)


def _tensors(model: Path, shape: GgufShape) -> Iterator[tuple[str, Path | None, tuple[int, ...], str]]:
    """Every tensor to write: its name in GGUF, its file (None: computed), its shape, its name in the file."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map
    from safetensors import safe_open

    from kchain.runtime.changes import shards

    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == shape.architecture)
    names = get_tensor_name_map(architecture, shape.layers)
    if shape.rope_factors is not None:
        yield "rope_freqs.weight", None, shape.rope_factors.shape, ""
    for shard in shards(model):
        with safe_open(shard, framework="numpy") as file:
            for source in file.keys():  # noqa: SIM118 - safe_open is no dictionary
                if shape.tied and source == "lm_head.weight":
                    continue
                name = names.get_name(source, try_suffixes=(".weight", ".bias"))
                if name is None:
                    raise _refused("for this model", f"llama.cpp has no tensor for {source}")
                yield name, shard, tuple(file.get_slice(source).get_shape()), source


def _type_of(dimensions: tuple[int, ...], kind: str) -> Any:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if len(dimensions) == 1:
        return GGMLQuantizationType.F32
    wanted = GGMLQuantizationType[kind.upper()]
    return GGMLQuantizationType.F16 if dimensions[-1] % GGML_QUANT_SIZES[wanted][0] else wanted


def _add_tensor(writer: GGUFWriter, name: str, dimensions: tuple[int, ...], kind: str) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, quant_shape_to_byte_shape

    wanted = _type_of(dimensions, kind)
    plain = {GGMLQuantizationType.F32: np.float32, GGMLQuantizationType.F16: np.float16}.get(wanted)
    block, width = GGML_QUANT_SIZES[wanted]
    bytes_ = int(np.prod(dimensions)) // block * width
    stored = dimensions if plain else quant_shape_to_byte_shape(dimensions, wanted)
    writer.add_tensor_info(name, stored, np.dtype(plain or np.uint8), bytes_, wanted)


def _read(path: Path | None, source: str, name: str, shape: GgufShape) -> Array:
    if path is None:
        assert shape.rope_factors is not None
        return shape.rope_factors
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        tensor: Array = file.get_tensor(source)
    heads = {".attn_q.": shape.heads, ".attn_k.": shape.key_heads} if shape.architecture == "llama" else {}
    for part, count in heads.items():
        if part in name:
            # Llama's own rotation takes the rows of a projection in pairs; transformers has them as halves.
            split = tensor.reshape(count, 2, tensor.shape[0] // count // 2, *tensor.shape[1:])
            return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(tensor.shape)
    return tensor


def _converted(tensor: Array, kind: Any) -> Array:
    """The bytes of a tensor in a type of GGUF; quantized a few rows at a time, each row by itself."""
    from gguf import GGMLQuantizationType, quants

    if kind == GGMLQuantizationType.F32:
        return tensor.astype(np.float32)
    if kind == GGMLQuantizationType.F16:
        return tensor.astype(np.float16, copy=False)
    pieces = (tensor[start : start + _ROWS].astype(np.float32) for start in range(0, len(tensor), _ROWS))
    return np.concatenate([quants.quantize(piece, kind) for piece in pieces])


@dataclass(frozen=True)
class GgufShape:
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


def read_shape(config: Mapping[str, Any]) -> GgufShape:
    """The shape that a config.json describes.

    Raises:
        InputError: llama.cpp would compute something else than transformers.
    """
    kind = config.get("model_type")
    architecture = ARCHITECTURES.get(str(kind))
    if architecture is None:
        raise _refused("for this model", f"model_type {kind!r}; known are {', '.join(ARCHITECTURES)}")
    _check_maths(config)
    try:
        return _shape(architecture, config)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"config.json of the base model lacks or misspells {error}", "fetch the model again") from None


def _check_maths(config: Mapping[str, Any]) -> None:
    if config.get("hidden_act", "silu") != "silu":
        raise _refused("for this model", f"hidden_act is {config['hidden_act']!r}, not silu")
    window = config.get("sliding_window")
    slides = config.get("use_sliding_window", window is not None) and window is not None
    if slides and int(window or 0) < int(config.get("max_position_embeddings", 0)):
        raise _refused("for this model", f"its attention slides over {window} tokens")
    if "sliding_attention" in (config.get("layer_types") or ()):
        raise _refused("for this model", "some of its layers have sliding attention")


def _shape(architecture: str, config: Mapping[str, Any]) -> GgufShape:
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    key_heads = int(config.get("num_key_value_heads") or heads)
    head_size = int(config.get("head_dim") or hidden // heads)
    theta, factors = _rope(architecture, config, head_size)
    keys: dict[str, int | float] = {
        "block_count": int(config["num_hidden_layers"]),
        "context_length": int(config["max_position_embeddings"]),
        "embedding_length": hidden,
        "feed_forward_length": int(config["intermediate_size"]),
        "attention.head_count": heads,
        "attention.head_count_kv": key_heads,
        "attention.layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "rope.freq_base": theta,
    }
    if architecture == "llama":
        keys |= {"vocab_size": int(config["vocab_size"]), "rope.dimension_count": head_size}
    if architecture == "qwen3" or head_size * heads != hidden:
        keys |= {"attention.key_length": head_size, "attention.value_length": head_size}
    return GgufShape(
        architecture=architecture,
        layers=int(config["num_hidden_layers"]),
        rows=int(config["vocab_size"]),
        heads=heads,
        key_heads=key_heads,
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
    raise _refused("for this model", f"its positions are scaled by {kind!r}")


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


class TokenKind(IntEnum):
    """GGUF's kinds of tokens."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


@dataclass(frozen=True)
class Words:
    """A tokenizer.

    Attributes:
        split: llama.cpp's name of the way text is split before BPE.
        tokens, kinds: by id, one for each row of the embedding.
        merges: "left right", in order.
        begins: text is begun with the BOS token.
        template: the chat template; "" where there is none.
    """

    split: str
    tokens: list[str]
    kinds: list[TokenKind]
    merges: list[str]
    begins: bool
    template: str


def read_words(folder: Path, rows: int) -> Words:
    """The tokenizer in a model's folder, filled up to the embedding's rows.

    Raises:
        InputError: llama.cpp would split or count text differently.
    """
    file = read_json(folder / "tokenizer.json")
    model = file.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _refused("with this tokenizer", "it is not byte-level BPE (SentencePiece is not supported)")
    tokens, kinds = _tokens(model["vocab"], file.get("added_tokens") or [], rows)
    post = file.get("post_processor") or {}
    steps = post.get("processors") or [post]
    singles = [step["single"] for step in steps if step.get("type") == "TemplateProcessing" and step.get("single")]
    return Words(
        split=_split(file.get("pre_tokenizer") or {}, bool(model.get("ignore_merges"))),
        tokens=tokens,
        kinds=kinds,
        # Byte-level BPE writes a space as another character, so one space separates the two parts unmistakably.
        merges=[merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]],
        begins=any("SpecialToken" in single[0] for single in singles),
        template=_MARKERS.sub("", chat_template(folder)),
    )


def _split(pre: Mapping[str, Any], whole_words_first: bool) -> str:
    steps = pre.get("pretokenizers") or [pre]
    kinds = [step.get("type") for step in steps]
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        pattern = steps[0].get("pattern", {}).get("Regex")
        found, whole = SPLITS.get(pattern, ("", False))
    elif kinds in (["ByteLevel"], ["Digits", "ByteLevel"]) and steps[-1].get("use_regex", True):
        found, whole = ("gpt-2" if len(kinds) == 1 else "smollm"), False
        if kinds[0] == "Digits" and not steps[0].get("individual_digits"):
            found = ""
    else:
        found, whole = "", False
    if not found or steps[-1].get("add_prefix_space") or whole != whole_words_first:
        raise _refused("with this tokenizer", "llama.cpp has no name for its way of splitting text")
    return found


def _tokens(vocabulary: Mapping[str, int], added: list[dict[str, Any]], rows: int) -> tuple[list[str], list[TokenKind]]:
    tokens = [f"[PAD{number}]" for number in range(rows)]
    kinds = [TokenKind.UNUSED] * rows
    special = {each["id"]: TokenKind.CONTROL if each["special"] else TokenKind.USER_DEFINED for each in added}
    known = {**vocabulary, **{each["content"]: each["id"] for each in added}}
    beyond = max(known.values(), default=0)
    if beyond >= rows:
        raise _refused("with this tokenizer", f"it has a token {beyond}, the model only {rows} rows")
    for text, number in known.items():
        tokens[number] = text
        kinds[number] = special.get(number, TokenKind.NORMAL)
    return tokens, kinds


def _refused(whose: str, what: str) -> InputError:
    cure = "export it with --format safetensors, and convert that with llama.cpp's own converter"
    return InputError(f"no GGUF {whose}: {what}", cure)
