"""What a process of `benchmarks/gpu.py` does beside its work: it keeps to a T4's means, and writes down what it sees.

Python imports this module by itself where its folder is on the path. In a training worker it does what the JSON in
KCHAIN_GPU_CHECK asks for; anywhere else, and without that, nothing. kchain itself knows nothing of it.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

T4 = (7, 5)


def keep_to_a_t4(memory: int | None, t4: bool) -> None:
    """Lets this process have no more of the card than `memory` bytes, and takes from torch what a T4 lacks."""
    import torch

    if not torch.cuda.is_available():
        return
    if memory:
        torch.cuda.set_per_process_memory_fraction(min(1.0, memory / torch.cuda.mem_get_info()[1]))
    if t4:
        torch.cuda.get_device_capability = lambda device=None: T4
        # Flash attention begins with 8.0; cuDNN's too.
        torch.backends.cuda.enable_flash_sdp(False)
        torch.backends.cuda.enable_cudnn_sdp(False)


def observe(wishes: dict[str, Any]) -> None:
    """Wraps the Trainer, so that what a run holds before, in and after its training is written into its folder."""
    import torch
    from transformers import Trainer

    free = torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else None
    keep_to_a_t4(wishes.get("memory"), wishes.get("t4", False))
    seen: dict[str, Any] = {"free_at_start": free, "scales": {}}
    if wishes.get("optimizer_to"):
        load_optimizers_to(wishes["optimizer_to"])
    train, training_step, ballast = Trainer.train, Trainer.training_step, []

    def observed_train(self: Any, *args: Any, **kwargs: Any) -> Any:
        seen.update(load_peak=peak(), model=inside(self.model))
        try:
            return train(self, *args, **kwargs)
        finally:
            seen.update(peak=peak(), reserved=peak("max_memory_reserved"), **after(self))
            folder = Path(self.args.output_dir).parent
            (folder / f"seen-{time.time_ns()}.json").write_text(json.dumps(seen))

    def observed_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        scaler, step = self.accelerator.scaler, self.state.global_step
        if scaler is not None:
            told = scaler.state_dict()
            seen["scales"][str(step)] = [scaler.get_scale(), told.get("_growth_tracker")]
        wish = wishes.get("ballast")
        if wish and not ballast and step == wish["step"] and self.args.per_device_train_batch_size == wish["batch"]:
            torch.cuda.empty_cache()
            size = wishes["memory"] - torch.cuda.memory_reserved() - wish["leave"]
            ballast.append(torch.empty(size, dtype=torch.uint8, device="cuda"))
        return training_step(self, *args, **kwargs)

    Trainer.train, Trainer.training_step = observed_train, observed_step


def load_optimizers_to(place: str) -> None:
    """Loads saved optimizers as several processes do, which the Trainer asks for by itself where there are several."""
    import torch

    load = torch.load

    def elsewhere(file: Any, *args: Any, **kwargs: Any) -> Any:
        if str(file).endswith("optimizer.pt"):
            kwargs["map_location"] = place
        return load(file, *args, **kwargs)

    torch.load = elsewhere


def peak(figure: str = "max_memory_allocated") -> int | None:
    """Bytes of torch's allocator on the card."""
    import torch

    return int(getattr(torch.cuda, figure)()) if torch.cuda.is_available() else None


def inside(model: Any) -> dict[str, Any]:
    """What a model is made of: types of what is trained, and how its linear modules are stored."""
    import torch

    head = model.get_base_model().get_output_embeddings()
    plain, quantized, nested, held, numbers = [], 0, 0, 0, 0
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or "lora_" in name or module is head:
            continue
        state = getattr(module.weight, "quant_state", None)
        if type(module).__name__ != "Linear4bit" or state is None:
            plain.append(name)
            continue
        quantized += 1
        nested += bool(state.nested)
        held += module.weight.nbytes + state.absmax.nbytes
        if state.nested:
            held += state.state2.absmax.nbytes
        numbers += state.shape.numel()
    trained = {str(weight.dtype) for weight in model.parameters() if weight.requires_grad}
    return {
        "trained": sorted(trained),
        "plain": len(plain),
        "quantized": quantized,
        "nested": nested,
        "bytes_a_weight": held / numbers if numbers else None,
        "head": type(head).__name__,
    }


def after(trainer: Any) -> dict[str, Any]:
    """The optimizer and the scaler as a run leaves them."""
    optimizer = getattr(trainer, "optimizer", None)
    tensors = [
        value
        for state in (optimizer.state.values() if optimizer is not None else ())
        for value in state.values()
        if hasattr(value, "device")
    ]
    scaler = trainer.accelerator.scaler
    return {
        "optimizer": type(getattr(optimizer, "optimizer", optimizer)).__name__,
        "paged": sum(bool(getattr(value, "is_paged", False)) for value in tensors),
        "state_tensors": len(tensors),
        "scaler": None if scaler is None else scaler.get_scale(),
    }


if os.environ.get("KCHAIN_GPU_CHECK") and any(part.endswith(".worker") for part in sys.orig_argv):
    observe(json.loads(os.environ["KCHAIN_GPU_CHECK"]))
