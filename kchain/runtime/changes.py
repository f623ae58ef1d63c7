"""What adapters change in a base model, weight by weight; checked against the base's files before anything is written.

A LoRA pair is added to its weight; trained token rows take the place of the rows that were there (PEFT calls them a
delta, and they are none). Only headers are read here: the tensors follow when a weight's turn comes.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open

from .adapters import Adapter
from .contract import LORA_A, LORA_B, TOKEN_ROWS, WEIGHTS
from .failure import Stop

FLOATS = ("F16", "BF16", "F32")
INDEX = "model.safetensors.index.json"
OTHER_BASE = "the adapter was trained on another base model: correct model.source, or run its phase again"
PREFIX = "base_model.model."
# Files and classes of one vision-language model disagree on these parts of a name: transformers renames while loading.
WRAPPERS = frozenset({"model", "language_model"})
HEAD = "lm_head.weight"
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class LowRank:
    """W + B @ A * scale, from an adapter's file; `a` and `b` are the names of the factors there."""

    adapter: Adapter
    a: str
    b: str
    scale: float

    def read(self) -> list[torch.Tensor]:
        """The factors (r, in) and (out, r) in fp32."""
        return _read(self.adapter, self.a, self.b)

    def apply(self, rows: torch.Tensor, first: int, read: Sequence[torch.Tensor]) -> None:
        """Adds the update in place to rows of an fp32 weight (out, in) that begin at `first`; `read` is read once."""
        a, b = read
        rows += (b[first : first + len(rows)] @ a).mul_(self.scale)


@dataclass(frozen=True)
class Rows:
    """W[ids] = the rows of an adapter's tensor."""

    adapter: Adapter
    name: str
    ids: tuple[int, ...]

    def read(self) -> list[torch.Tensor]:
        """The rows (tokens, width) in fp32, in a list of one."""
        return _read(self.adapter, self.name)

    def apply(self, rows: torch.Tensor, first: int, read: Sequence[torch.Tensor]) -> None:
        """Replaces those of its rows that are among rows (any, width) of an fp32 weight, which begin at `first`."""
        for number, row in zip(self.ids, read[0], strict=True):
            if first <= number < first + len(rows):
                rows[number - first] = row


Changes = dict[str, list[LowRank | Rows]]  # weight's name in the base's files -> what is done to it, in order


def find_changes(base: Path, adapters: Sequence[Adapter], lora: Mapping[str, Any]) -> Changes:
    """Everything that the adapters change, in their order.

    Raises:
        Stop: the base is quantized on disk, or an adapter does not fit it: another name, shape or rank, rows it lacks.
    """
    shapes = base_shapes(base)
    changes: Changes = {}
    for adapter in adapters:
        own = _adapter_shapes(adapter)
        for module, change in _changes_of(adapter, own, lora):
            name = _resolve(adapter, module, shapes)
            _check_shape(change, own, name, shapes[name], lora["r"])
            for weight in (name, *_tied_to(base, name, change, shapes)):
                changes.setdefault(weight, []).append(change)
    return changes


def shards(base: Path) -> list[Path]:
    """The weight files of a model that its index names, or the only one."""
    index = base / INDEX
    if not index.is_file():
        return [base / "model.safetensors"]
    names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    return [base / name for name in sorted(set(names))]


def base_shapes(base: Path) -> Shapes:
    """The shape of every weight of a model folder, from the headers of its files.

    Raises:
        Stop: a weight is not of a floating-point type: it was quantized.
    """
    shapes: Shapes = {}
    for shard in shards(base):
        with shard.open("rb") as file:
            shapes |= {name: tuple(entry["shape"]) for name, entry in read_header(file)[1].items()}
    return shapes


def read_header(file: BinaryIO) -> tuple[int, dict[str, dict[str, Any]]]:
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


def embedding_rows(base: Path) -> int:
    """Rows of a model's embedding: at least as many as it has tokens, often more.

    Raises:
        Stop: no weight of the base is called an embedding.
    """
    for name, shape in base_shapes(base).items():
        if name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")):
            return shape[0]
    raise Stop("no weight of the base model is called an embedding", "leave [tokens] out for this base model")


def _adapter_shapes(adapter: Adapter) -> Shapes:
    """The shape of every tensor of an adapter, each a matrix, by name."""
    with safe_open(adapter.folder / WEIGHTS, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in sorted(file.keys())}
    for name, shape in shapes.items():
        if len(shape) != 2 or not math.prod(shape):
            raise Stop(f"{adapter.phase}: {name} has shape {shape}; expected a matrix", _cure(adapter))
    return shapes


def _changes_of(adapter: Adapter, own: Shapes, lora: Mapping[str, Any]) -> list[tuple[str, LowRank | Rows]]:
    """(module, change) for every tensor or pair of tensors of an adapter, by name."""
    found: list[tuple[str, LowRank | Rows]] = []
    for name in own:
        if name.endswith(LORA_A):
            b = name.removesuffix(LORA_A) + LORA_B
            if b not in own:
                raise Stop(f"{adapter.phase}: {name} has no {LORA_B[1:]} beside it", _cure(adapter))
            found.append((name.removesuffix(LORA_A), LowRank(adapter, name, b, lora["alpha"] / lora["r"])))
        elif name.endswith(TOKEN_ROWS):
            module = name.removesuffix(TOKEN_ROWS)
            found.append((module, Rows(adapter, name, _token_ids(adapter, module))))
        elif not name.endswith(LORA_B):
            raise Stop(f"{adapter.phase}: {name} is neither a LoRA factor nor token rows", _cure(adapter))
    return found


def _token_ids(adapter: Adapter, module: str) -> tuple[int, ...]:
    """Which rows of a module an adapter trained, as its config says."""
    config = json.loads((adapter.folder / "adapter_config.json").read_text(encoding="utf-8"))
    told = config.get("trainable_token_indices") or {}
    told = told if isinstance(told, dict) else {"embed_tokens": told}
    ids = next((ids for name, ids in told.items() if module.endswith(name)), ())
    return tuple(int(number) for number in ids)


def _resolve(adapter: Adapter, module: str, shapes: Shapes) -> str:
    """The name in the base's files of what PEFT calls by the name in its class."""
    name = module.removeprefix(PREFIX) + ".weight"
    if name in shapes:
        return name
    bare = _bare(name)
    found = [other for other in shapes if _bare(other) == bare]
    if not found and bare == HEAD:  # a tied head that is trained by itself stands in no file
        raise Stop(f"{adapter.phase}: it trained a head of its own, the base model's is its embedding", OTHER_BASE)
    if len(found) != 1:
        raise Stop(f"{adapter.phase}: the base model has no weight {name}", OTHER_BASE)
    return found[0]


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _tied_to(base: Path, name: str, change: LowRank | Rows, shapes: Shapes) -> list[str]:
    """The stored copy of a tied head, which the rows of the embedding belong into, too."""
    heads = [other for other in shapes if _bare(other) == HEAD and other != name]
    if not isinstance(change, Rows) or _bare(name) == HEAD or not heads:
        return []
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config") or {}
    return heads if config.get("tie_word_embeddings", text.get("tie_word_embeddings", False)) else []


def _check_shape(change: LowRank | Rows, own: Shapes, name: str, shape: tuple[int, ...], rank: int) -> None:
    phase = change.adapter.phase
    if isinstance(change, LowRank):
        (r, inputs), (outputs, r_b) = own[change.a], own[change.b]
        if r != rank or r_b != rank:
            raise Stop(f"{phase}: {change.a} has rank {r}, its config says {rank}", _cure(change.adapter))
        fits = (outputs, inputs) == shape
    else:
        found = own[change.name]
        if not change.ids or found[0] != len(change.ids):
            raise Stop(
                f"{phase}: {found[0]} token rows for {len(change.ids)} tokens of its config", _cure(change.adapter)
            )
        if max(change.ids) >= shape[0]:
            reason = f"{phase} trained token {max(change.ids)}; {name} of the base model has {shape[0]} rows"
            raise Stop(reason, OTHER_BASE)
        fits = found[1] == shape[1]
    if not fits:
        raise Stop(f"{phase}: its update of {name} does not have the weight's shape {shape}", OTHER_BASE)


def _read(adapter: Adapter, *names: str) -> list[torch.Tensor]:
    """Tensors of an adapter in fp32, all of them finite."""
    with safe_open(adapter.folder / WEIGHTS, framework="pt") as file:
        tensors = [file.get_tensor(name).float() for name in names]
    for name, tensor in zip(names, tensors, strict=True):
        if not tensor.isfinite().all():
            raise Stop(f"{adapter.phase}: {name} holds NaN or infinity", _cure(adapter))
    return tensors


def _cure(adapter: Adapter) -> str:
    return f"run {adapter.phase} again, or adopt another adapter for it"
