"""The frozen base model and the LoRA weights that are trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging

from .events import emit
from .failure import Stop

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def load_base(folder: Path, precision: str, quantization: str) -> Any:
    """The base model, on this process's GPU where there is one, in the precision of the phase or in 4 bits.

    Raises:
        Stop: 4 bits were asked for and no layer has them.
    """
    logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    dtype = DTYPES[precision]
    options: dict[str, Any] = {"dtype": dtype}
    if torch.cuda.is_available():
        # All of it on one device: "auto" would spread it over two GPUs and make every step wait for both.
        options["device_map"] = {"": torch.cuda.current_device()}
    if quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(  # type: ignore[no-untyped-call,unused-ignore]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(folder, **options)
    if quantization == "nf4" and not any(type(module).__name__ == "Linear4bit" for module in model.modules()):
        raise Stop("nf4 was asked for, but no layer is in 4 bits", "check the version of bitsandbytes")
    model.config.use_cache = False
    return model


def add_lora(model: Any, lora: dict[str, Any], seed: int) -> Any:
    """The model with a fresh adapter; only the adapter is trainable.

    Raises:
        Stop: a trainable weight is not float32; the gradient scaler of fp16 training cannot unscale it.
    """
    torch.manual_seed(seed)
    targets = list(lora["targets"])
    config = LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        bias=lora["bias"],
        task_type=TaskType.CAUSAL_LM,
    )
    model = get_peft_model(model, config)
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    emit("model", trainable=sum(weight.numel() for weight in trainable.values()), device=str(model.device))
    for name, weight in trainable.items():
        if weight.dtype != torch.float32:
            raise Stop(f"{name} is trainable and {weight.dtype}, not float32", "check the version of peft")
    return model
