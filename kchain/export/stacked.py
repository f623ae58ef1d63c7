"""The chain as one adapter on the original base: the factors of all phases side by side.

The sum of B_i A_i s_i over the phases is one product: [B_1 s_1 | B_2 s_2 | ...] times [A_1 ; A_2 ; ...], so one LoRA
of the summed rank, with alpha equal to the rank, changes a weight as all of them do, exactly but for the order in which
fp32 adds. It never saw the rounding of the merged fp16 model that the later phases were trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kchain.export.companions import copy_licences, copy_tokenizer, read_json, tokenizer_folder, write_json
from kchain.export.subject import Subject, stops_told

if TYPE_CHECKING:
    import torch

CONFIG = "adapter_config.json"


def stack(updates: Mapping[str, Sequence[tuple[Any, Any, float]]]) -> dict[str, torch.Tensor]:
    """The tensors of the single adapter, by the names PEFT gives them.

    Args:
        updates: weight's name -> (B (out, r), A (r, in), scale) of every adapter that changes it, in order.

    Returns:
        lora_A (sum of r, in) and lora_B (out, sum of r) of every weight, fp32; to be scaled by 1.
    """
    import torch

    tensors = {}
    for weight, parts in updates.items():
        module = "base_model.model." + weight.removesuffix(".weight")
        tensors[f"{module}.lora_A.weight"] = torch.cat([a for _, a, _ in parts])
        tensors[f"{module}.lora_B.weight"] = torch.cat([b * scale for b, _, scale in parts], dim=1)
    return tensors


def write_stacked(subject: Subject, folder: Path) -> list[str]:
    """Write the adapter and its tokenizer into `folder`, which must not exist; it loads with plain PEFT.

    Returns:
        The names of the licence texts that went along.

    Raises:
        InputError: an adapter holds something that is not a LoRA factor, or a value that is not finite.
    """
    from safetensors.torch import save_file

    from kchain.runtime.adapters import WEIGHTS
    from kchain.runtime.merge import read_updates

    folder.mkdir()
    with stops_told():
        tensors = stack(read_updates(subject.adapters, subject.lora["alpha"] / subject.lora["r"]))
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    rank = subject.lora["r"] * len(subject.adapters)
    config = read_json(subject.last / CONFIG)
    write_json(
        folder / CONFIG,
        {
            **config,
            "r": rank,
            "lora_alpha": rank,
            "base_model_name_or_path": subject.chain.model.source,
            "inference_mode": True,
        },
    )
    copy_tokenizer(tokenizer_folder(subject.last, subject.base), folder, subject.pad)
    return copy_licences(subject.base, folder)
