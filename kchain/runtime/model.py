"""The frozen base model and the adapter that is trained on it: LoRA weights, and rows of tokens if a phase has any."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, BitsAndBytesConfig
from transformers.integrations import sdpa_attention
from transformers.utils import logging

from .failure import Stop, emit
from .tokenizer import TokenRow

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
# Parts of a model that read no text, by a part of their name.
SENSES = re.compile(r"(^|[._])(visual|vision|image|video|audio)")
# The first compute capability for which torch has a fused kernel that takes fewer heads of keys than of queries. On a
# T4 (7.5) such a call falls back to one that keeps whole attention matrices in fp32: transformers issue 48633.
GROUPED = (8, 0)


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
    on_this_gpu()
    config = AutoConfig.from_pretrained(folder)
    # The class of the checkpoint: one that sees keeps its vision part, so that names of weights are the files' own.
    sees = getattr(config, "vision_config", None) is not None
    kind: Any = AutoModelForImageTextToText if sees else AutoModelForCausalLM
    model = kind.from_pretrained(folder, **options, **implementation(config))
    if quantization == "nf4" and not any(type(module).__name__ == "Linear4bit" for module in model.modules()):
        raise Stop("nf4 was asked for, but no layer is in 4 bits", "check the version of bitsandbytes")
    model.config.use_cache = False
    model.config.get_text_config().use_cache = False  # another one where a model sees
    return model


def adapt(model: Any, parameters: dict[str, Any], continued: str | None, rows: Sequence[TokenRow]) -> Any:
    """The model with the adapter that the phase trains: a fresh one, or the one in the folder that it continues.

    Raises:
        Stop: a trainable weight is not float32, or the model's head cannot have trained rows.
    """
    if continued is None:
        return add_lora(model, parameters["lora"], parameters["seed"], rows)
    torch.manual_seed(parameters["seed"])
    return _ready(PeftModel.from_pretrained(model, continued, is_trainable=True), _language(model))


def add_lora(model: Any, lora: dict[str, Any], seed: int, rows: Sequence[TokenRow] = ()) -> Any:
    """The model with a fresh adapter; only the adapter is trainable, and it is on the language part alone.

    Raises:
        Stop: a trainable weight is not float32, or the model's head cannot have trained rows.
    """
    torch.manual_seed(seed)
    language = _language(model)
    targets = list(lora["targets"])
    config = LoraConfig(
        r=lora["r"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=_linear_names(model, language) if targets == ["all-linear"] else targets,
        # A vision part may have modules of the same names; it stays as it is.
        exclude_modules=rf"(?!{re.escape(language)}).*|.*{SENSES.pattern}.*" if language else None,
        bias=lora["bias"],
        task_type=TaskType.CAUSAL_LM,
        trainable_token_indices={name: [row.id for row in rows] for name in _token_modules(model)} if rows else None,
    )
    starts = {name: _starts(module, rows) for name, module in _token_modules(model).items()} if rows else {}
    adapted = get_peft_model(model, config)
    for name, weight in adapted.named_parameters():
        if "trainable_tokens_delta" in name:
            weight.data.copy_(starts.pop(name.split(".token_adapter")[0].rsplit(".", 1)[-1]))
    if starts:
        raise Stop(f"peft trains no rows of {', '.join(starts)}", "check the version of peft")
    return _ready(adapted, language)


def _language(model: Any) -> str:
    """What the names of the language part begin with in a model that also sees; "" where there is nothing else."""
    if getattr(model.config, "vision_config", None) is None:
        return ""
    decoder = model.get_decoder()
    return f"{next(name for name, module in model.named_modules() if module is decoder)}."


def _linear_names(model: Any, language: str) -> list[str]:
    """Last parts of the names of all linear modules of the language part, but for the head."""
    head = model.get_output_embeddings()
    return sorted(
        {
            name.rsplit(".", 1)[-1]
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
            and module is not head
            and name.startswith(language)
            and not (language and SENSES.search(name))
        }
    )


def _token_modules(model: Any) -> dict[str, Any]:
    """Name and module of the embedding, and of the head where that has weights of its own.

    Raises:
        Stop: PEFT would leave out the bias of the head.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    modules = [embedding]
    if head is not None and head.weight is not embedding.weight:
        modules.append(head)
    if getattr(head, "bias", None) is not None:
        raise Stop(
            "the model's head has a bias, which peft leaves out where token rows are trained", "leave [tokens] out"
        )
    names = {module: name.rsplit(".", 1)[-1] for name, module in model.named_modules()}
    return {names[module]: module for module in modules}


def _starts(module: Any, rows: Sequence[TokenRow]) -> torch.Tensor:
    """What the rows begin as (tokens, width), fp32: their own rows, or the mean of the pieces of a new token's name."""
    weight = module.weight.detach()
    return torch.stack([weight[list(row.begins_as)].float().mean(dim=0) for row in rows])


def _ready(model: Any, language: str) -> Any:
    """Tells what is trained and what is frozen; the gradient scaler of fp16 training needs fp32 weights."""
    trainable = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    count = sum(weight.numel() for weight in trainable.values())
    # A weight in 4 bits has two numbers in each of its bytes.
    every = sum(weight.numel() * (1 + hasattr(weight, "quant_state")) for weight in model.parameters())
    senses = [name for name, _ in model.named_parameters() if language and SENSES.search(name)]
    emit("model", trainable=count, share=round(count / every, 6), frozen_vision=len(senses), device=str(model.device))
    for name, weight in trainable.items():
        if weight.dtype != torch.float32:
            raise Stop(f"{name} is trainable and {weight.dtype}, not float32", "check the version of peft")
    return model


def implementation(config: Any) -> dict[str, str]:
    """Options for `from_pretrained`: SDPA knows no soft cap, and transformers 5.0 would leave Gemma 2's out unsaid."""
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None) is not None
    return {"attn_implementation": "eager"} if capped else {}


def keep_fused(capability: tuple[int, int]) -> None:
    """Has transformers repeat keys and values for SDPA, on a GPU of this compute capability, where that is faster.

    It does so by itself where there is a mask; a row of one example has none.
    """
    if capability < GROUPED:
        sdpa_attention.use_gqa_in_sdpa = lambda *_: False  # type: ignore[assignment,unused-ignore]


def on_this_gpu() -> None:
    """`keep_fused` on the GPU of this process, if it has one."""
    if torch.cuda.is_available():
        keep_fused(torch.cuda.get_device_capability())
