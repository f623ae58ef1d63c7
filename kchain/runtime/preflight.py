"""What must be right before time is spent: machine, disk, inputs, precision."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

from .events import emit
from .failure import Stop
from .paths import refuse_gzip

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "tokenizers", "safetensors")
# Bytes of disk that must stay free beside a merged base: checkpoints, caches and the output.
SPARE_DISK = 2**30
# A GPU reports a little less memory than its data sheet: this share of the wanted memory must be there.
MEMORY_SHARE = 0.95


def choose_device(gpus: int) -> None:
    """Leaves one GPU visible, or none; to be called before torch is imported.

    Two visible GPUs make the Trainer use DataParallel, which is slower than one. A server that has already given this
    session its devices is obeyed: the first of them is taken.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    os.environ["CUDA_VISIBLE_DEVICES"] = given.split(",")[0] if gpus else ""


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        if importlib.util.find_spec(name) is not None:
            found[name] = importlib.metadata.version(name)
    return found


def check_gpu(wanted: dict[str, Any]) -> None:
    """Compares the GPU that is there with the one the plan was made for.

    Raises:
        Stop: there is none, or it is older or smaller.
    """
    if not wanted["gpus"]:
        return
    import torch

    cure = f"set the notebook's accelerator to {wanted['name']}, or plan the phase for the machine that is there"
    if not torch.cuda.is_available():
        raise Stop(f"{wanted['name']} was asked for, and torch sees no GPU", cure)
    found = torch.cuda.get_device_properties(0)
    capability = (found.major, found.minor)
    emit("gpu", name=found.name, memory=found.total_memory, capability=capability)
    if capability < tuple(wanted["capability"]):
        raise Stop(f"{found.name} has compute capability {capability}; {wanted['name']} was asked for", cure)
    if found.total_memory < MEMORY_SHARE * wanted["memory"]:
        raise Stop(f"{found.name} has {found.total_memory} bytes of memory; the plan needs {wanted['memory']}", cure)
    if capability != tuple(wanted["capability"]):
        emit("warning", message=f"the GPU is a {found.name}, newer than the {wanted['name']} that was asked for")


def check_precision(precision: str, accelerator: dict[str, Any]) -> None:
    """Refuses arithmetic that the machine does not have."""
    if precision == "bf16" and tuple(accelerator["capability"]) < (8, 0):
        raise Stop(f"{accelerator['name']} has no bf16", 'set training.precision = "auto"')
    if precision == "fp16" and not accelerator["gpus"]:
        raise Stop("fp16 training needs a GPU and its gradient scaler", 'set training.precision = "auto"')


def check_bitsandbytes(quantization: str, optimizer: str) -> None:
    """Refuses 4-bit weights and 8-bit optimizers without the package for them."""
    needs = [word for word in (quantization, optimizer) if word == "nf4" or "8bit" in word]
    if needs and importlib.util.find_spec("bitsandbytes") is None:
        raise Stop(
            f"{' and '.join(needs)} need bitsandbytes, which is not installed",
            'pip install bitsandbytes, or set training.optimizer = "adamw_torch" and training.quantization = "none"',
        )


def check_model(folder: Path) -> None:
    """Refuses a base model that is damaged, pickled, or already quantized on disk."""
    cure = "attach the model in transformers format, unquantized, as safetensors"
    if not (folder / "config.json").is_file():
        raise Stop(f"{folder} holds no config.json", cure)
    for file in folder.glob("*.json"):
        refuse_gzip(file)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "quantization_config" in config:
        raise Stop(f"{folder} is quantized on disk; merging into it would round the adapters away", cure)
    if not list(folder.glob("*.safetensors")):
        raise Stop(f"{folder} holds no safetensors file; pickled weights are not opened", cure)


def weight_bytes(folder: Path) -> int:
    """Bytes of a model's weights on disk."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def check_disk(scratch: Path, needed: int) -> None:
    """Refuses a scratch folder with less than `needed` bytes and a spare GiB free."""
    free = shutil.disk_usage(scratch).free
    if free < needed + SPARE_DISK:
        reason = f"{scratch} has {free} bytes free; {needed + SPARE_DISK} are needed"
        raise Stop(reason, "delete what lies in scratch, or use a smaller base model")
