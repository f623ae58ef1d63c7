"""Earlier adapters into the base model: one pass over its safetensors files, tensor by tensor, written once as fp16.

Every update of every adapter is added in fp32 and the sum is rounded once. Weights are mapped from disk, and computed
some rows at a time, so host memory holds no whole tensor. Quantization, if any, happens later, when the merged base is
loaded.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open

from .adapters import Adapter
from .changes import INDEX, Changes, LowRank, Rows, find_changes, read_header, shards
from .failure import Stop
from .files import begin_folder, rename_folder, write_json
from .tokenizer import is_tokenizer_file, tokenizer_folder

BLOCK = 2**16  # values that are converted at a time; with its copies it stays in a processor's own cache
SUMMED = 2**20  # values that are added up at a time: twice as fast as whole matrices (measured)
COPIED = 2**20  # bytes that are handed on at a time
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
    # One thread a file, and each computes alone: threads that share a product wait for each other more than they win.
    with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        total = sum(pool.map(lambda shard: _write_shard(shard, partial / shard.name, changes), shards(base)))
    _copy_companions(base, tokenizer_folder(base, adapters), partial, total)
    rename_folder(partial, target)
    return target


def _write_shard(source: Path, target: Path, changes: Changes) -> int:
    """Writes one file of weights as fp16; returns the bytes of its tensors."""
    with safe_open(source, framework="pt") as tensors, source.open("rb") as bytes_, target.open("wb", 0) as out:
        first, entries = read_header(bytes_)
        written = _write_header(out, entries)
        for name, entry in entries.items():
            todo, begin = changes.get(name, []), out.tell()
            if any(isinstance(change, LowRank) for change in todo):
                _sum(name, tensors.get_tensor(name), todo, out)
                continue
            if entry["dtype"] == "F16":
                _copy(bytes_, first, entry["data_offsets"], out)
            else:
                _convert(name, tensors.get_tensor(name), out)
            for change in todo:
                if isinstance(change, Rows):
                    _replace(name, change, begin, out)
    return written


def _write_header(out: BinaryIO, entries: dict[str, dict[str, Any]]) -> int:
    """The header of the fp16 file: 8 bytes of length, then JSON with a place in the file for every tensor."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, entry in entries.items():
        end = offset + 2 * math.prod(entry["shape"])
        header[name] = {"dtype": "F16", "shape": entry["shape"], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write(struct.pack("<Q", len(text)) + text)
    return offset


def _copy(source: BinaryIO, first: int, place: Sequence[int], out: BinaryIO) -> None:
    """Hands on the bytes of a tensor that is fp16 already; through a buffer, which every file system can do."""
    source.seek(first + place[0])
    left = place[1] - place[0]
    buffer = memoryview(bytearray(min(COPIED, left)))
    while left and (count := source.readinto(buffer[:left])):  # type: ignore[attr-defined]
        out.write(buffer[:count])
        left -= count


def _convert(name: str, weight: torch.Tensor, out: BinaryIO) -> None:
    """Rounds a tensor to fp16, block by block, so that memory stays flat; by way of fp32 torch is twice as fast."""
    size = min(BLOCK, weight.numel())
    wide, half = torch.empty(size), torch.empty(size, dtype=torch.float16)
    for block in torch.split(weight.view(-1), BLOCK):
        rounded = half[: len(block)].copy_(wide[: len(block)].copy_(block))
        _check_range(name, rounded)
        out.write(rounded.numpy().data)


def _replace(name: str, change: Rows, begin: int, out: BinaryIO) -> None:
    """Writes rows over those of a matrix that stands at `begin` already: no copy of a whole embedding in memory."""
    for number, row in zip(change.ids, change.read()[0].to(torch.float16), strict=True):
        _check_range(name, row)
        out.seek(begin + number * 2 * len(row))
        out.write(row.numpy().data)
    out.seek(0, os.SEEK_END)


def _sum(name: str, weight: torch.Tensor, changes: Sequence[LowRank | Rows], out: BinaryIO) -> None:
    """Adds every change in fp32 and rounds once, some rows at a time; blocks of like sizes are computed alike."""
    read = [change.read() for change in changes]
    first = 0
    for rows in torch.tensor_split(weight, math.ceil(weight.numel() / SUMMED)):
        total = rows.to(torch.float32, copy=True)
        for change, what in zip(changes, read, strict=True):
            change.apply(total, first, what)
        half = total.to(torch.float16)
        _check_range(name, half)
        out.write(half.numpy().data)
        first += len(rows)


def _check_range(name: str, half: torch.Tensor) -> None:
    low, high = half.aminmax()  # one pass without a copy; NaN and infinity come through
    if not (low.isfinite() and high.isfinite()):
        raise Stop(f"{name} has values beyond fp16 (65504)", "the base model or an adapter is damaged, or needs bf16")


def _copy_companions(base: Path, tokenizer: Path, target: Path, total: int) -> None:
    """Configs of the base, and its tokenizer or the one that has taken its place."""
    for file in (file for folder in dict.fromkeys((base, tokenizer)) for file in folder.iterdir()):
        # An adapter's folder has other configs; its chat template comes after the base's and replaces it.
        wanted = base == tokenizer or is_tokenizer_file(file) == (file.parent == tokenizer) or file.suffix == ".jinja"
        if file.is_file() and file.suffix in COMPANIONS and wanted:
            shutil.copyfile(file, target / file.name)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    write_json(target / "config.json", {**config, "dtype": "float16"})
    if (base / INDEX).is_file():
        index = json.loads((base / INDEX).read_text(encoding="utf-8"))
        write_json(target / INDEX, {**index, "metadata": {"total_size": total}})
