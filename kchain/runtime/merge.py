"""Earlier adapters into the base model: one pass over its safetensors files, tensor by tensor, written once as fp16.

Every update of every adapter is added in fp32 and the sum is rounded once. Weights are mapped from disk, so host memory
holds one tensor at a time. Quantization, if any, happens later, when the merged base is loaded.
"""

from __future__ import annotations

import json
import math
import shutil
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open

from .adapters import Adapter
from .changes import INDEX, Changes, LowRank, Rows, find_changes, shards
from .failure import Stop
from .files import begin_folder, finish_folder, write_json
from .tokenizer import is_tokenizer_file, tokenizer_folder

# What belongs to a model beside its weights: configs, the tokenizer and its template.
COMPANIONS = (".json", ".txt", ".jinja", ".model")


def merge(base: Path, adapters: Sequence[Adapter], lora: dict[str, Any], target: Path) -> Path:
    """The folder of a base model with every adapter added; the base's own folder when there is none.

    Its tokenizer is that of the last adapter that has one: that one knows every token added so far.

    Raises:
        Stop: an adapter does not fit the base, or a sum does not fit into fp16.
    """
    if not adapters:
        return base
    changes = find_changes(base, adapters, lora)
    partial = begin_folder(target)
    total = sum(_write_shard(shard, partial / shard.name, changes) for shard in shards(base))
    _copy_companions(base, tokenizer_folder(base, adapters), partial, total)
    finish_folder(partial, target)
    return target


def _write_shard(source: Path, target: Path, changes: Changes) -> int:
    """Writes one file of weights as fp16 and takes what it used out of `updates`; returns the bytes of its tensors."""
    with safe_open(source, framework="pt") as tensors, target.open("wb") as out:
        names = list(tensors.keys())
        offset = _write_header(out, names, tensors)
        for name in names:
            out.write(_merged(name, tensors.get_tensor(name), changes.get(name, [])).numpy().data)
    return offset


def _write_header(out: BinaryIO, names: Sequence[str], tensors: Any) -> int:
    """The safetensors header: 8 bytes of length, then JSON with a place in the file for every tensor."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        shape = tensors.get_slice(name).get_shape()
        end = offset + 2 * math.prod(shape)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write(struct.pack("<Q", len(text)) + text)
    return offset


def _merged(name: str, weight: torch.Tensor, changes: Sequence[LowRank | Rows]) -> torch.Tensor:
    if changes:
        # Rows that are replaced need no sum, so no fp32 copy of a whole embedding.
        sums = any(isinstance(change, LowRank) for change in changes)
        weight = weight.to(torch.float32 if sums else torch.float16, copy=True)
    for change in changes:
        change.apply(weight)
    half = weight.to(torch.float16)
    low, high = half.aminmax()  # one pass without a copy; NaN and infinity come through
    if not (low.isfinite() and high.isfinite()):
        raise Stop(f"{name} has values beyond fp16 (65504)", "the base model or an adapter is damaged, or needs bf16")
    return half.contiguous()


def _copy_companions(base: Path, tokenizer: Path, target: Path, total: int) -> None:
    """Configs of the base, and its tokenizer or the one that has taken its place."""
    for file in (*base.iterdir(), *tokenizer.iterdir()):
        of_tokenizer = is_tokenizer_file(file)
        if file.is_file() and file.suffix in COMPANIONS and file.parent == (tokenizer if of_tokenizer else base):
            shutil.copyfile(file, target / file.name)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    write_json(target / "config.json", {**config, "dtype": "float16"})
    if (base / INDEX).is_file():
        index = json.loads((base / INDEX).read_text(encoding="utf-8"))
        write_json(target / INDEX, {**index, "metadata": {"total_size": total}})
