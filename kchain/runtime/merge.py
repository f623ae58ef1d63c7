"""Earlier adapters into the base model: one pass over its safetensors files, tensor by tensor, written once as fp16.

Every update of every adapter is added in fp32 and the sum is rounded once. Weights are mapped from disk, so host memory
holds one tensor at a time and the adapters. Quantization, if any, happens later, when the merged base is loaded.
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

from .adapters import WEIGHTS, Adapter
from .failure import Stop
from .files import begin_folder, rename_folder, write_json

FLOATS = ("F16", "BF16", "F32")
BLOCK = 2**16  # values that are converted at a time; with its copies it stays in a processor's own cache
COPIED = 2**20  # bytes that are handed on at a time
INDEX = "model.safetensors.index.json"
# What belongs to a model beside its weights: configs, the tokenizer and its template.
COMPANIONS = (".json", ".txt", ".jinja", ".model")
OTHER_BASE = "the adapter was trained on another base model: correct model.source, or run its phase again"
Updates = dict[str, list[tuple[torch.Tensor, torch.Tensor, float]]]  # weight's name -> (B, A, alpha / r), in order


def merge(base: Path, adapters: Sequence[Adapter], lora: dict[str, Any], target: Path) -> Path:
    """The folder of a base model with every adapter added; the base's own folder when there is none.

    Raises:
        Stop: an adapter does not fit the base, or a sum does not fit into fp16.
    """
    if not adapters:
        return base
    updates = read_updates(adapters, lora["alpha"] / lora["r"])
    partial = begin_folder(target)
    # One thread a file, and each computes alone: threads that share a product wait for each other more than they win.
    with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        total = sum(pool.map(lambda shard: _write_shard(shard, partial / shard.name, updates), shards(base)))
    if updates:
        raise Stop(f"the base model has no weight {next(iter(updates))}", OTHER_BASE)
    _copy_companions(base, partial, total)
    rename_folder(partial, target)
    return target


def shards(base: Path) -> list[Path]:
    """The weight files of a model that its index names, or the only one."""
    index = base / INDEX
    if not index.is_file():
        return [base / "model.safetensors"]
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [base / name for name in sorted(set(names))]


def read_updates(adapters: Sequence[Adapter], scale: float) -> Updates:
    """The low-rank factors of all adapters, in order, by the name of the weight they change.

    Raises:
        Stop: an adapter holds something that is not a LoRA factor, or a value that is not finite.
    """
    updates: Updates = {}
    for adapter in adapters:
        cure = f"run {adapter.phase} again, or adopt another adapter for it"
        with safe_open(adapter.folder / WEIGHTS, framework="pt") as file:
            names = sorted(file.keys())
            other = [name for name in names if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
            if other:
                raise Stop(f"{adapter.phase}: {other[0]} is not a LoRA factor and cannot be merged", cure)
            for name in (name for name in names if name.endswith(".lora_A.weight")):
                a = file.get_tensor(name).float()
                b = file.get_tensor(name.replace(".lora_A.", ".lora_B.")).float()
                if not (a.isfinite().all() and b.isfinite().all()):
                    raise Stop(f"{adapter.phase}: {name} holds NaN or infinity", cure)
                weight = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
                updates.setdefault(weight, []).append((b, a, scale))
    return updates


def _write_shard(source: Path, target: Path, updates: Updates) -> int:
    """Writes one file of weights as fp16 and takes what it used out of `updates`; returns the bytes of its tensors."""
    with safe_open(source, framework="pt") as tensors, source.open("rb") as bytes_, target.open("wb", 0) as out:
        first, entries = _read_header(bytes_)
        written = _write_header(out, entries)
        for name, entry in entries.items():
            changes = updates.pop(name, None)
            if changes:
                out.write(_merged(name, tensors.get_tensor(name), changes).numpy().data)
            elif entry["dtype"] == "F16":
                _copy(bytes_, first, entry["data_offsets"], out)
            else:
                _convert(name, tensors.get_tensor(name), out)
    return written


def _read_header(file: BinaryIO) -> tuple[int, dict[str, dict[str, Any]]]:
    """Where the tensors of a safetensors file begin, and its entries in the order of their places.

    Raises:
        Stop: a tensor is quantized.
    """
    (length,) = struct.unpack("<Q", file.read(8))
    entries: dict[str, dict[str, Any]] = json.loads(file.read(length))
    entries.pop("__metadata__", None)
    for name, entry in entries.items():
        if entry["dtype"] not in FLOATS:
            raise Stop(f"{name} of the base is {entry['dtype']}: quantized", "attach the unquantized model")
    return 8 + length, dict(sorted(entries.items(), key=lambda item: tuple(item[1]["data_offsets"])))


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


def _merged(name: str, weight: torch.Tensor, updates: list[tuple[torch.Tensor, torch.Tensor, float]]) -> torch.Tensor:
    total = weight.to(torch.float32, copy=True)
    for b, a, scale in updates:
        if (b.shape[0], a.shape[1]) != tuple(weight.shape):
            raise Stop(f"{name}: an adapter's update has not its shape {tuple(weight.shape)}", OTHER_BASE)
        total += (b @ a).mul_(scale)
    half = total.to(torch.float16)
    _check_range(name, half)
    return half


def _check_range(name: str, half: torch.Tensor) -> None:
    low, high = half.aminmax()  # one pass without a copy; NaN and infinity come through
    if not (low.isfinite() and high.isfinite()):
        raise Stop(f"{name} has values beyond fp16 (65504)", "the base model or an adapter is damaged, or needs bf16")


def _copy_companions(base: Path, target: Path, total: int) -> None:
    for file in base.iterdir():
        if file.is_file() and file.suffix in COMPANIONS:
            shutil.copyfile(file, target / file.name)
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    config.pop("torch_dtype", None)
    write_json(target / "config.json", {**config, "dtype": "float16"})
    if (base / INDEX).is_file():
        index = json.loads((base / INDEX).read_text(encoding="utf-8"))
        write_json(target / INDEX, {**index, "metadata": {"total_size": total}})
