"""What must be right before time is spent: machine and GPUs, precision, packages, the base model, disk."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .failure import Stop, emit
from .paths import refuse_gzip

PACKAGES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "datasets", "tokenizers", "safetensors")
# Bytes of disk that must stay free beside a merged base: checkpoints, caches and the output.
SPARE_DISK = 2**30
# A GPU reports a little less memory than its data sheet: this share of the wanted memory must be there.
MEMORY_SHARE = 0.95
LOOKING_SECONDS = 300  # importing torch on a cold disk takes a minute


@dataclass(frozen=True)
class Gpu:
    """One GPU that torch sees. `free` and `total` are bytes; looking itself takes some hundred MiB of what is free."""

    name: str
    capability: tuple[int, int]
    total: int
    free: int


def choose_device(gpus: int) -> None:
    """Leaves so many GPUs visible, one for each training process; to be called before torch is imported.

    One process that sees two GPUs makes the Trainer use DataParallel, which is slower than one. A server that has
    already given this session its devices is obeyed: the first of them are taken.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = given.split(",") if given is not None else [str(number) for number in range(gpus)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices[:gpus])


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that matter; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        if importlib.util.find_spec(name) is not None:
            found[name] = importlib.metadata.version(name)
    return found


def check_gpus(wanted: dict[str, Any], found: Sequence[Gpu], others: Sequence[str]) -> None:
    """Compares the GPUs that are there with those that the plan was made for.

    Args:
        wanted: PARAMETERS["accelerator"].
        others: programs that compute on them, in words.

    Raises:
        Stop: there is none, or one is older or smaller, or somebody else has taken what the plan needs.
    """
    cure = f"set the notebook's accelerator to {wanted['name']}, or plan the phase for the machine that is there"
    if not found:
        raise Stop(f"{wanted['name']} was asked for, and torch sees no GPU", cure)
    needed = MEMORY_SHARE * wanted["memory"]
    by = f" ({'; '.join(others)})" if others else ""
    for gpu in found:
        emit("gpu", name=gpu.name, memory=gpu.total, free=gpu.free, capability=gpu.capability)
        if gpu.capability < tuple(wanted["capability"]):
            raise Stop(f"{gpu.name} has compute capability {gpu.capability}; {wanted['name']} was asked for", cure)
        if gpu.total < needed:
            raise Stop(f"{gpu.name} has {gpu.total} bytes of memory; the plan needs {wanted['memory']}", cure)
        if gpu.free < needed:
            raise Stop(
                f"only {gpu.free} of {gpu.total} bytes of {gpu.name} are free: other programs have the rest{by}",
                "end what else runs on the GPU (another notebook's kernel, a server), then push again",
            )
    if others:
        emit("warning", message=f"other programs compute on the GPU and will slow this one down{by}")
    if found[0].capability != tuple(wanted["capability"]):
        emit("warning", message=f"the GPU is a {found[0].name}, newer than the {wanted['name']} that was asked for")


def processes(wanted: int, gpus: int, accumulation: int) -> int:
    """Training processes for the GPUs that are there: as many as were planned, or the most that share a step evenly.

    Args:
        wanted: as planned, one a GPU.
        gpus: how many are there; 0 where the plan is for a CPU.
        accumulation: batches of a step.
    """
    if not gpus or gpus >= wanted:
        return wanted
    fewer = max(count for count in range(1, gpus + 1) if accumulation % count == 0)
    emit(
        "warning",
        message=f"{wanted} GPUs were planned and {gpus} found: {fewer} of them train, with the same examples in a "
        f"step; a step may take {wanted / fewer:g} times as long as planned",
    )
    return fewer


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
        raise Stop(reason, "delete files in scratch, or use a smaller base model")


def look() -> list[Gpu]:
    """The GPUs that torch sees, asked in a process of its own: looking takes memory of a GPU until the process ends.

    Raises:
        Stop: torch cannot even be asked.
    """
    package = __package__ or ""
    command = [sys.executable, "-m", f"{package}.preflight"]
    root = Path(__file__).resolve().parents[len(package.split("."))]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=LOOKING_SECONDS, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        last = (error.stderr or "nothing").strip().splitlines()[-1] if isinstance(error.stderr, str) else "nothing"
        raise Stop(
            f"torch cannot look at the GPUs; it said: {last}", "check the driver and the version of torch"
        ) from None
    found = json.loads(done.stdout.splitlines()[-1])
    return [Gpu(**{**gpu, "capability": tuple(gpu["capability"])}) for gpu in found]


def others() -> list[str]:
    """Programs that compute on the GPUs now, as the driver tells them; nothing where it does not."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-compute-apps=pid,process_name,used_memory", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=LOOKING_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def main() -> None:
    """Prints what torch sees, for `look`."""
    import torch

    found = []
    for number in range(torch.cuda.device_count()):
        seen = torch.cuda.get_device_properties(number)
        free, total = torch.cuda.mem_get_info(number)
        found.append(Gpu(seen.name, (seen.major, seen.minor), total, free))
    print(json.dumps([asdict(gpu) for gpu in found]))


if __name__ == "__main__":
    main()
