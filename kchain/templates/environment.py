"""What a notebook is told of its machine, and what it installs there first."""

from __future__ import annotations

from typing import Any

from kchain.phases import Accelerator, Exporting, Phase

# What Kaggle's image lacks and what in it must go (docker-python 78aaa43, August 2026: torch 2.10, peft 0.19.1,
# torchao 0.10.0, no bitsandbytes). bitsandbytes asks for torch >= 2.4 and no more, so the image's torch stays.
BITSANDBYTES = "bitsandbytes==0.50.2"
# The package that llama.cpp publishes for its files; it needs numpy and no torch.
GGUF = "gguf==0.19.0"
# peft since 0.18.1 refuses to put LoRA on a model while a torchao this old is installed.
CONFLICTING = "torchao"


def accelerator_table(accelerator: Accelerator) -> dict[str, Any]:
    """PARAMETERS["accelerator"]."""
    return {
        "name": accelerator.name,
        "gpus": accelerator.gpus,
        "memory": accelerator.memory,
        "capability": list(accelerator.capability),
    }


def environment(phase: Phase, target: str) -> dict[str, list[str]]:
    """What to install and remove first: on Kaggle's image alone, one's own machine has its environment already."""
    if target != "kaggle":
        return {"install": [], "uninstall": []}
    trains = phase.use is None
    exports = phase.use if isinstance(phase.use, Exporting) else None
    needs_bitsandbytes = phase.training.quantization == "nf4" or (trains and "8bit" in phase.training.optimizer)
    needs_gguf = exports is not None and "gguf" in exports.formats
    install = [*([BITSANDBYTES] if needs_bitsandbytes else []), *([GGUF] if needs_gguf else [])]
    return {"install": install, "uninstall": [CONFLICTING]}
