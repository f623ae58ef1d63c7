"""The weights of a LoRA adapter: the right matrices and token rows, in the right shapes, with sound values."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kchain.errors import AdapterRefused
from kchain.phases import Lora
from kchain.runtime.contract import LORA_A, LORA_B, TOKEN_ROWS

# PEFT's name of a matrix: base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight
_SIDES = {LORA_A: "A", LORA_B: "B"}
_NAME = re.compile(rf"(?P<module>.+)(?P<side>{'|'.join(map(re.escape, _SIDES))})")
# In place of names: every linear module, which the session found by looking.
ALL_LINEAR = ("all-linear",)
# Modules that read the hidden state: their A is as wide as a row of the embedding.
_READERS = frozenset({"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"})
_LAYER = re.compile(r"(?P<before>.*?)\.(?P<layer>\d+)\.(?P<after>.+)")
_AGAIN = "the training did not save what it should have: kchain logs PHASE, then train it again"
# The reference implementation's own limit of a header.
LARGEST_HEADER = 100_000_000
_PIECE = 1 << 22
# Width in bytes of the element types that an adapter may have.
_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Tensor:
    """One tensor's place: `start` and `end` are byte offsets in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Scan:
    """What a pass over a tensor's values found."""

    finite: bool
    zero: bool


Pair = dict[str, Tensor]


def check_weights(path: Path, lora: Lora, tokens: int, warnings: list[str]) -> int:
    """Check `adapter_model.safetensors`; what is only odd is added to `warnings`.

    Args:
        tokens: how many tokens' rows it holds, in the embedding and, where that is apart, in the head.

    Returns:
        The number of tensors.

    Raises:
        AdapterRefused: a matrix is missing, too many, misshapen, not finite, or all B are zero.
    """
    tensors = read_header(path)
    rows = {name: tensor for name, tensor in tensors.items() if name.endswith(TOKEN_ROWS)}
    modules = _pairs(path, {name: tensor for name, tensor in tensors.items() if name not in rows}, lora)
    _check_layers(path, modules, lora)
    _check_rows(path, rows, modules, tokens)
    _check_values(path, modules, warnings)
    return len(tensors)


def _refuse(path: Path, what: str) -> AdapterRefused:
    return AdapterRefused(f"{path}: {what}", _AGAIN)


def _pairs(path: Path, tensors: dict[str, Tensor], lora: Lora) -> dict[str, Pair]:
    """Matrices A (r, in) and B (out, r) of every module."""
    modules: dict[str, Pair] = defaultdict(dict)
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        known = match is not None and (lora.targets == ALL_LINEAR or _last(match["module"]) in lora.targets)
        if match is None or not known:
            raise _refuse(path, f"{name} does not belong to a LoRA on {', '.join(lora.targets)}")
        modules[match["module"]][_SIDES[match["side"]]] = tensor
    if not modules:
        raise _refuse(path, "it holds no tensor")
    for module, pair in modules.items():
        if len(pair) != 2:
            raise _refuse(path, f"{module} has lora_{next(iter(pair))} alone")
        a, b = pair["A"].shape, pair["B"].shape
        if len(a) != 2 or len(b) != 2 or a[0] != lora.r or b[1] != lora.r or not all((*a, *b)):
            raise _refuse(
                path,
                f"{module} has shapes A {a}, B {b}; rank {lora.r} was expected: A ({lora.r}, in), B (out, {lora.r})",
            )
    return dict(modules)


def _check_layers(path: Path, modules: dict[str, Pair], lora: Lora) -> None:
    """Every layer has every target, in the same shapes as the first one; no layer is missing between two others.

    Layers may stand at a fixed distance: some architectures have attention in every fourth layer alone.
    """
    layers: dict[int, dict[str, tuple[tuple[int, ...], ...]]] = defaultdict(dict)
    for module, pair in modules.items():
        match = _LAYER.fullmatch(module)
        if match is None:
            raise _refuse(path, f"{module} is in no numbered layer")
        layers[int(match["layer"])][match["after"]] = (pair["A"].shape, pair["B"].shape)
    numbers = sorted(layers)
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    if numbers != list(range(numbers[0], numbers[-1] + 1, step)):
        raise _refuse(path, f"layers are missing: there are {numbers}")
    named = lora.targets != ALL_LINEAR
    first = layers[numbers[0]]
    if named and (absent := set(lora.targets) - {_last(name) for name in first}):
        raise _refuse(path, f"no adapter on {', '.join(sorted(absent))}")
    every = {name: shapes for number in reversed(numbers) for name, shapes in layers[number].items()}
    for number, layer in layers.items():
        # All linear modules: layers of two kinds differ in which they have, not in the shape of one.
        if layer != (first if named else {name: every[name] for name in layer}):
            raise _refuse(path, f"layer {number} differs from layer {numbers[0]} in its modules or shapes")


def _check_rows(path: Path, rows: dict[str, Tensor], modules: dict[str, Pair], tokens: int) -> None:
    """One row a token, as wide as the hidden state; once for the embedding, and once more for a head of its own."""
    if bool(rows) != bool(tokens) or len(rows) > 2:
        raise _refuse(path, f"it holds {len(rows)} tensors of token rows; the phase trains {tokens} tokens")
    widths = {pair["A"].shape[1] for module, pair in modules.items() if _last(module) in _READERS}
    for name, tensor in rows.items():
        if len(tensor.shape) != 2 or tensor.shape[0] != tokens or widths - {tensor.shape[1]}:
            width = ", ".join(map(str, widths)) or "hidden size"
            raise _refuse(path, f"{name} has shape {tensor.shape}; ({tokens}, {width}) was expected")
        if not scan(path, tensor).finite:
            raise _refuse(path, f"{name} holds NaN or infinite values: the training diverged")


def _check_values(path: Path, modules: dict[str, Pair], warnings: list[str]) -> None:
    """All finite; B starts at zero, so a B that still is learned nothing."""
    untouched = []
    for module, pair in modules.items():
        for side, tensor in pair.items():
            found = scan(path, tensor)
            if not found.finite:
                raise _refuse(path, f"{tensor.name} holds NaN or infinite values: the training diverged")
            if side == "B" and found.zero:
                untouched.append(module)
    if len(untouched) == len(modules):
        raise _refuse(path, "every B matrix is zero: nothing was learned")
    if untouched:
        warnings.append(f"{len(untouched)} of {len(modules)} B matrices are zero, such as {untouched[0]}")


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


# The safetensors format, read with numpy alone: a checked header, and tensors in pieces. The reference implementation
# opens no bf16 in numpy, and takes a header that names a tensor twice.


def read_header(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file, checked against the file's size.

    Raises:
        AdapterRefused: it is not a whole and sound safetensors file of floating-point tensors.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= length <= min(LARGEST_HEADER, size - 8):
                raise _not_sound(path, f"its header would have {length} bytes, the file has {size}")
            header = file.read(length)
    except OSError as error:
        raise _not_sound(path, f"it cannot be read: {error.strerror or error}") from None
    return _tensors(path, header, size)


def _not_sound(path: Path, what: str) -> AdapterRefused:
    return AdapterRefused(
        f"{path}: not a sound safetensors file: {what}",
        "fetch it again (kchain pull); if it stays so, the session saved it wrongly: run the phase again",
    )


def _tensors(path: Path, header: bytes, size: int) -> dict[str, Tensor]:
    try:
        fields = json.loads(header, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _not_sound(path, f"its header is not JSON: {error!s:.100}") from None
    if not isinstance(fields, dict):
        raise _not_sound(path, "its header is not a JSON object")
    base = 8 + len(header)
    tensors = [_tensor(path, name, entry, base) for name, entry in fields.items() if name != "__metadata__"]
    position = base
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != position:
            raise _not_sound(path, f"a gap or an overlap in front of {tensor.name}")
        position = tensor.end
    if position != size:
        raise _not_sound(path, f"it has {size} bytes, not {position}: cut short, or something is appended")
    return {tensor.name: tensor for tensor in tensors}


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it has a name twice")
    return found


def _tensor(path: Path, name: str, entry: Any, base: int) -> Tensor:
    if not isinstance(entry, dict):
        raise _not_sound(path, f"{name} has no entry")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not (
        isinstance(shape, list)
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(type(value) is int and value >= 0 for value in shape + offsets)
    ):
        raise _not_sound(path, f"{name} has no valid shape or place")
    if not isinstance(dtype, str) or dtype not in _WIDTHS:
        raise _not_sound(path, f"{name} is of type {dtype!r}; an adapter is {', '.join(_WIDTHS)}")
    if offsets[1] - offsets[0] != math.prod(shape) * _WIDTHS[dtype]:
        raise _not_sound(path, f"{name} has another number of bytes than its shape")
    return Tensor(name, dtype, tuple(shape), base + offsets[0], base + offsets[1])


def scan(path: Path, tensor: Tensor) -> Scan:
    """Go over a tensor's values in pieces of some megabytes."""
    finite, zero = True, True
    kind = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}[tensor.dtype]
    left = (tensor.end - tensor.start) // _WIDTHS[tensor.dtype]
    with path.open("rb") as file:
        file.seek(tensor.start)
        while left > 0:
            piece = np.fromfile(file, dtype=kind, count=min(left, _PIECE))
            if piece.size == 0:
                raise _not_sound(path, f"{tensor.name} is cut short")
            left -= piece.size
            if tensor.dtype == "BF16":
                # The upper half of a float32: all exponent bits set means infinite or NaN.
                finite = finite and bool(np.all((piece & 0x7F80) != 0x7F80))
                zero = zero and not np.any(piece & 0x7FFF)
            else:
                finite = finite and bool(np.all(np.isfinite(piece)))
                zero = zero and not np.any(piece)
    return Scan(finite, zero)
