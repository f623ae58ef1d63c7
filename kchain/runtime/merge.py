"""Earlier adapters into the base model: one pass over its safetensors files, tensor by tensor, written once as fp16.

Every update of every adapter is added in fp32 and the sum is rounded once. Weights are mapped from disk, so host memory
holds one tensor at a time and the adapters. Quantization, if any, happens later, when the merged base is loaded.
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

from .adapters import WEIGHTS, Adapter
from .failure import Stop
from .files import begin_folder, finish_folder, write_json

FLOATS = ("F16", "BF16", "F32")
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
    total = sum(_write_shard(shard, partial / shard.name, updates) for shard in shards(base))
    if updates:
        raise Stop(f"the base model has no weight {next(iter(updates))}", OTHER_BASE)
    _copy_companions(base, partial, total)
    finish_folder(partial, target)
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
    with safe_open(source, framework="pt") as tensors, target.open("wb") as out:
        names = list(tensors.keys())
        offset = _write_header(out, names, tensors)
        for name in names:
            out.write(_merged(name, tensors.get_tensor(name), updates.pop(name, [])).numpy().data)
    return offset


def _write_header(out: BinaryIO, names: Sequence[str], tensors: Any) -> int:
    """The safetensors header: 8 bytes of length, then JSON with a place in the file for every tensor."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name in names:
        part = tensors.get_slice(name)
        if part.get_dtype() not in FLOATS:
            raise Stop(f"{name} of the base is {part.get_dtype()}: quantized", "attach the unquantized model")
        end = offset + 2 * math.prod(part.get_shape())
        header[name] = {"dtype": "F16", "shape": part.get_shape(), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    out.write(struct.pack("<Q", len(text)) + text)
    return offset


def _merged(name: str, weight: torch.Tensor, updates: list[tuple[torch.Tensor, torch.Tensor, float]]) -> torch.Tensor:
    if updates:
        weight = weight.to(torch.float32, copy=True)
    for b, a, scale in updates:
        if (b.shape[0], a.shape[1]) != tuple(weight.shape):
            raise Stop(f"{name}: an adapter's update has not its shape {tuple(weight.shape)}", OTHER_BASE)
        weight += (b @ a) * scale
    half = weight.to(torch.float16)
    low, high = half.aminmax()  # one pass without a copy; NaN and infinity come through
    if not (low.isfinite() and high.isfinite()):
        raise Stop(f"{name} has values beyond fp16 (65504)", "the base model or an adapter is damaged, or needs bf16")
    return half.contiguous()


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
