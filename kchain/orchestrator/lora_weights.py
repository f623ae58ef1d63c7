"""The weights of a LoRA adapter: the right matrices, in the right shapes, with sound values."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from kchain.errors import AdapterRefused
from kchain.orchestrator.tensor_file import Tensor, read_header, scan
from kchain.phases import Lora

# PEFT's name of a matrix: base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight
_NAME = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_LAYER = re.compile(r"(?P<before>.*?)\.(?P<layer>\d+)\.(?P<after>.+)")
_AGAIN = "the training did not save what it should have: kchain logs PHASE, then train it again"

Pair = dict[str, Tensor]


def check_weights(path: Path, lora: Lora, warnings: list[str]) -> int:
    """Check `adapter_model.safetensors`; what is only odd is added to `warnings`.

    Returns:
        The number of tensors.

    Raises:
        AdapterRefused: a matrix is missing, too many, misshapen, not finite, or all B are zero.
    """
    tensors = read_header(path)
    modules = _pairs(path, tensors, lora)
    _check_shapes(path, modules, lora)
    _check_layers(path, modules, lora)
    _check_values(path, modules, warnings)
    return len(tensors)


def _refuse(path: Path, what: str) -> AdapterRefused:
    return AdapterRefused(f"{path}: {what}", _AGAIN)


def _pairs(path: Path, tensors: dict[str, Tensor], lora: Lora) -> dict[str, Pair]:
    """Matrices A and B of every module."""
    modules: dict[str, Pair] = defaultdict(dict)
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None or match["module"].rsplit(".", 1)[-1] not in lora.targets:
            raise _refuse(path, f"{name} does not belong to a LoRA on {', '.join(lora.targets)}")
        modules[match["module"]][match["side"]] = tensor
    if not modules:
        raise _refuse(path, "it holds no tensor")
    for module, pair in modules.items():
        if len(pair) != 2:
            raise _refuse(path, f"{module} has lora_{next(iter(pair))} alone")
    return dict(modules)


def _check_shapes(path: Path, modules: dict[str, Pair], lora: Lora) -> None:
    """A is (r, in), B is (out, r)."""
    for module, pair in modules.items():
        a, b = pair["A"].shape, pair["B"].shape
        if len(a) != 2 or len(b) != 2 or a[0] != lora.r or b[1] != lora.r or not all((*a, *b)):
            raise _refuse(
                path, f"{module} has shapes A {a}, B {b}; rank {lora.r} was due: A ({lora.r}, in), B (out, {lora.r})"
            )


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
    first = layers[numbers[0]]
    absent = set(lora.targets) - {name.rsplit(".", 1)[-1] for name in first}
    if absent:
        raise _refuse(path, f"no adapter on {', '.join(sorted(absent))}")
    for number, layer in layers.items():
        if layer != first:
            raise _refuse(path, f"layer {number} differs from layer {numbers[0]} in its modules or shapes")


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
