"""The chain as one adapter on the original base: the factors of all phases side by side.

The sum of B_i A_i s_i over the phases is one product: [B_1 s_1 | B_2 s_2 | ...] times [A_1 ; A_2 ; ...], so one LoRA
of the summed rank, with alpha equal to the rank, changes a weight as all of them do, exactly but for the order in which
fp32 adds. It never saw the rounding of the merged fp16 model that the later phases were trained on. Token rows are
replaced, not added to: of several phases that trained a token, the last one's row counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kchain.runtime.contract import CONFIG, LORA_A, LORA_B, TOKEN_ROWS, WEIGHTS
from kchain.uses.companions import copy_licences, copy_tokenizer, read_json, write_json
from kchain.uses.subject import TrainedPhase, stops_told

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]


def stack_factors(adapters: Sequence[Mapping[str, torch.Tensor]], scale: float) -> Tensors:
    """The LoRA factors of one adapter that does what all do, by the names PEFT gives them; to be scaled by 1.

    Args:
        adapters: the tensors of each: lora_A (r, in) and lora_B (out, r) of the same modules.
        scale: alpha / r of every one.

    Returns:
        lora_A (sum of r, in) and lora_B (out, sum of r), fp32.
    """
    import torch

    tensors = {}
    for name in (name for name in adapters[0] if name.endswith(LORA_A)):
        b = name.removesuffix(LORA_A) + LORA_B
        tensors[name] = torch.cat([adapter[name].float() for adapter in adapters])
        tensors[b] = torch.cat([adapter[b].float() * scale for adapter in adapters], dim=1)
    return tensors


def stack_rows(adapters: Sequence[tuple[Mapping[str, torch.Tensor], Mapping[str, Sequence[int]]]]) -> Any:
    """The token rows that are left when every adapter has replaced its own, in turn.

    Args:
        adapters: the tensors of each, and which rows of each module they are: {"embed_tokens": [ids]}.

    Returns:
        (tensors by name, ids by module), both empty where no adapter has rows.
    """
    import torch

    rows: dict[str, dict[int, torch.Tensor]] = {}
    for tensors, indices in adapters:
        for module, ids in indices.items():
            name = next(name for name in tensors if name.endswith(f"{module}{TOKEN_ROWS}"))
            rows.setdefault(name, {}).update(zip(ids, tensors[name].float(), strict=True))
    modules = {name: name.removesuffix(TOKEN_ROWS).rsplit(".", 1)[-1] for name in rows}
    stacked = {name: torch.stack(list(found.values())) for name, found in rows.items()}
    return stacked, {modules[name]: list(found) for name, found in rows.items()}


def write_stacked(subject: TrainedPhase, folder: Path) -> list[str]:
    """Write the adapter and its tokenizer into `folder`, which must not exist; it loads with plain PEFT.

    Returns:
        The names of the licence texts that went along.

    Raises:
        InputError: an adapter does not fit the base.
    """
    from safetensors.torch import load_file, save_file

    from kchain.runtime.changes import find_changes
    from kchain.runtime.tokenizer import tokenizer_folder

    with stops_told():
        find_changes(subject.base, subject.adapters, subject.lora)
    folder.mkdir()
    tensors = [load_file(part.folder / WEIGHTS) for part in subject.parts]
    configs = [read_json(part.folder / CONFIG) for part in subject.parts]
    told = [config.get("trainable_token_indices") or {} for config in configs]
    ids = [each if isinstance(each, dict) else {"embed_tokens": each} for each in told]
    rows, indices = stack_rows(list(zip(tensors, ids, strict=True)))
    factors = stack_factors(tensors, subject.lora["alpha"] / subject.lora["r"])
    save_file(factors | rows, folder / WEIGHTS, {"format": "pt"})
    rank = subject.lora["r"] * len(tensors)
    changed = {"r": rank, "lora_alpha": rank, "trainable_token_indices": indices or None, "inference_mode": True}
    write_json(folder / CONFIG, {**configs[-1], **changed, "base_model_name_or_path": subject.base_model})
    copy_tokenizer(tokenizer_folder(subject.base, subject.adapters), subject.base, folder, subject.pad)
    return copy_licences(subject.base, folder)
