"""The safetensors format, read with numpy alone: a checked header, and tensors in pieces.

The format: 8 bytes little-endian length N, N bytes of JSON {name: {dtype, shape, data_offsets: [start, end]}}, then the
data, without gaps. Nothing in it is executed; that is why kchain takes nothing else.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kchain.errors import AdapterRefused

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
                raise _refuse(path, f"its header would have {length} bytes, the file has {size}")
            header = file.read(length)
    except OSError as error:
        raise _refuse(path, f"it cannot be read: {error.strerror or error}") from None
    return _tensors(path, header, size)


def _refuse(path: Path, what: str) -> AdapterRefused:
    return AdapterRefused(
        f"{path}: not a sound safetensors file: {what}",
        "fetch it again (kchain pull); if it stays so, the session saved it wrongly: run the phase again",
    )


def _tensors(path: Path, header: bytes, size: int) -> dict[str, Tensor]:
    try:
        fields = json.loads(header, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        raise _refuse(path, f"its header is not JSON: {error!s:.100}") from None
    if not isinstance(fields, dict):
        raise _refuse(path, "its header is no JSON object")
    base = 8 + len(header)
    tensors = [_tensor(path, name, entry, base) for name, entry in fields.items() if name != "__metadata__"]
    position = base
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != position:
            raise _refuse(path, f"a gap or an overlap in front of {tensor.name}")
        position = tensor.end
    if position != size:
        raise _refuse(path, f"{position} bytes were due, it has {size}: cut short, or something is appended")
    return {tensor.name: tensor for tensor in tensors}


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands in it twice")
    return found


def _tensor(path: Path, name: str, entry: Any, base: int) -> Tensor:
    if not isinstance(entry, dict):
        raise _refuse(path, f"{name} has no entry")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if (
        not isinstance(shape, list)
        or not isinstance(offsets, list)
        or len(offsets) != 2
        or not _counts(shape + offsets)
    ):
        raise _refuse(path, f"{name} has no proper shape or place")
    if not isinstance(dtype, str) or dtype not in _WIDTHS:
        raise _refuse(path, f"{name} is of type {dtype!r}; an adapter is {', '.join(_WIDTHS)}")
    if offsets[1] - offsets[0] != math.prod(shape) * _WIDTHS[dtype]:
        raise _refuse(path, f"{name} has another number of bytes than its shape")
    return Tensor(name, dtype, tuple(shape), base + offsets[0], base + offsets[1])


def _counts(values: list[Any]) -> bool:
    return all(type(value) is int and value >= 0 for value in values)


def scan(path: Path, tensor: Tensor) -> Scan:
    """Go over a tensor's values in pieces of some megabytes."""
    finite, zero = True, True
    for piece in _pieces(path, tensor):
        if tensor.dtype == "BF16":
            # The upper half of a float32: all exponent bits set means infinite or no number.
            finite = finite and bool(np.all((piece & 0x7F80) != 0x7F80))
            zero = zero and not np.any(piece & 0x7FFF)
        else:
            finite = finite and bool(np.all(np.isfinite(piece)))
            zero = zero and not np.any(piece)
    return Scan(finite, zero)


def _pieces(path: Path, tensor: Tensor) -> Iterator[np.ndarray[Any, Any]]:
    kind = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}[tensor.dtype]
    count = (tensor.end - tensor.start) // _WIDTHS[tensor.dtype]
    with path.open("rb") as file:
        file.seek(tensor.start)
        while count > 0:
            piece = np.fromfile(file, dtype=kind, count=min(count, _PIECE))
            if piece.size == 0:
                raise _refuse(path, f"{tensor.name} is cut short")
            count -= piece.size
            yield piece
