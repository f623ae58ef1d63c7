"""A GGUF file from a model's folder, tensor by tensor: host memory holds one tensor of the model at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kchain.errors import InputError
from kchain.export.companions import read_json
from kchain.export.gguf_shape import Shape, read_shape
from kchain.export.gguf_words import Words, read_words

if TYPE_CHECKING:
    from gguf import GGUFWriter

Array = npt.NDArray[Any]

TYPES = ("f16", "q8_0")
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
        InputError: llama.cpp would not compute what transformers computes, or the folder is no such model.
    """
    from gguf import GGUFWriter

    config = read_json(model / "config.json")
    shape = read_shape(config)
    words = read_words(model, shape.rows)
    writer = GGUFWriter(None, shape.architecture)
    _add_keys(writer, shape, kind, about)
    _add_words(writer, words, pad_id, config.get("bos_token_id"))
    plan = list(_plan(model, shape))
    for name, _, dimensions, _ in plan:
        _add_tensor(writer, name, dimensions, kind)
    writer.write_header_to_file(out)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, file, dimensions, source in plan:
        writer.write_tensor_data(_converted(_read(file, source, name, shape), _type_of(dimensions, kind)))
    writer.close()


def _add_keys(writer: GGUFWriter, shape: Shape, kind: str, about: Mapping[str, str]) -> None:
    from gguf import GGML_QUANT_VERSION, LlamaFileType

    writer.add_type("model")
    for key, text in about.items():
        writer.add_string(key, text)
    writer.add_file_type({"f16": LlamaFileType.MOSTLY_F16, "q8_0": LlamaFileType.MOSTLY_Q8_0}[kind])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    for key, value in shape.keys.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{shape.architecture}.{key}", value)  # type: ignore[arg-type]


def _add_words(writer: GGUFWriter, words: Words, pad_id: int, bos: object) -> None:
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


def _plan(model: Path, shape: Shape) -> Iterator[tuple[str, Path | None, tuple[int, ...], str]]:
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
                    raise InputError(f"no GGUF for this model: llama.cpp has no tensor for {source}")
                yield name, shard, tuple(file.get_slice(source).get_shape()), source


def _read(path: Path | None, source: str, name: str, shape: Shape) -> Array:
    if path is None:
        assert shape.rope_factors is not None
        return shape.rope_factors
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        tensor: Array = file.get_tensor(source)
    if shape.architecture == "llama" and ".attn_q." in name:
        return halves_to_pairs(tensor, shape.heads)
    if shape.architecture == "llama" and ".attn_k." in name:
        return halves_to_pairs(tensor, shape.key_heads)
    return tensor


def halves_to_pairs(tensor: Array, heads: int) -> Array:
    """Rows of a query or key projection as Llama's own rotation takes them: pairs, where transformers has halves.

    Args:
        tensor: (heads * head size, ...).
    """
    split = tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2)).reshape(tensor.shape)


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


def _converted(tensor: Array, kind: Any) -> Array:
    """The bytes of a tensor in a type of GGUF; quantized a few rows at a time, each row by itself."""
    from gguf import GGMLQuantizationType, quants

    if kind == GGMLQuantizationType.F32:
        return tensor.astype(np.float32)
    if kind == GGMLQuantizationType.F16:
        return tensor.astype(np.float16, copy=False)
    pieces = (tensor[start : start + _ROWS].astype(np.float32) for start in range(0, len(tensor), _ROWS))
    return np.concatenate([quants.quantize(piece, kind) for piece in pieces])
