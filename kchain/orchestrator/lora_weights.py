"""The weights of a LoRA adapter: the right matrices and token rows, in the right shapes, with sound values."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from kchain.errors import AdapterRefused
from kchain.orchestrator.tensor_file import Tensor, read_header, scan
from kchain.phases import Lora

# PEFT's name of a matrix: base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight
_NAME = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
# Rows of trained tokens: base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta
_ROWS = ".token_adapter.trainable_tokens_delta"
# In place of names: every linear module, which the session found by looking.
ALL_LINEAR = ("all-linear",)
# Modules that read the hidden state: their A is as wide as a row of the embedding.
_READERS = frozenset({"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"})
_LAYER = re.compile(r"(?P<before>.*?)\.(?P<layer>\d+)\.(?P<after>.+)")
_AGAIN = "the training did not save what it should have: kchain logs PHASE, then train it again"

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
    rows = {name: tensor for name, tensor in tensors.items() if name.endswith(_ROWS)}
    modules = _pairs(path, {name: tensor for name, tensor in tensors.items() if name not in rows}, lora)
    _check_shapes(path, modules, lora)
    _check_layers(path, modules, lora)
    _check_rows(path, rows, modules, tokens)
    _check_values(path, modules, warnings)
    return len(tensors)


def _refuse(path: Path, what: str) -> AdapterRefused:
    return AdapterRefused(f"{path}: {what}", _AGAIN)


def _pairs(path: Path, tensors: dict[str, Tensor], lora: Lora) -> dict[str, Pair]:
    """Matrices A and B of every module."""
    modules: dict[str, Pair] = defaultdict(dict)
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        known = match is not None and (lora.targets == ALL_LINEAR or _last(match["module"]) in lora.targets)
        if match is None or not known:
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
            raise _refuse(path, f"{name} has shape {tensor.shape}; ({tokens}, {width}) was due")
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
