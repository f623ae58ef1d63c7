"""What a session leaves behind: the adapter with its tokenizer and model card, and the examples kept aside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import safe_open

from .contract import ADAPTER, CONFIG, VALIDATION, WEIGHTS, AdapterEntry, PhaseResult
from .examples import Example
from .files import begin_folder, finish_folder, hash_file, write_json, write_text

CARD = """---
base_model: {base}
library_name: peft
tags: [lora, kchain]
---
# {chain} / {phase}: {title}

A LoRA adapter, trained by kchain. {belongs}
{continued}{tokens}
The tokenizer beside it has {pad} (id {pad_id}) as its end-of-sequence and its padding token; the training learned it as
the end of an answer.
"""
FIRST = "Nothing is merged below it: load it on {base} with `PeftModel.from_pretrained`."
LATER = """**It does not belong on {base} alone**, but on that model with these adapters
merged into it, in this order, in fp32, rounded once to fp16:

{lineage}

Load it on that merged model with `PeftModel.from_pretrained`."""
CONTINUED = """
It continues and replaces the adapter of {phase} ({ref}, sha256 {sha256}): do not use both.
"""
TOKENS = """
It knows the tokens {tokens}: take the tokenizer beside it, and do not resize the model's embedding.
"""


def save_weights(model: Any, folder: Path) -> None:
    """Writes the weights and the configuration of an adapter."""
    # "auto" would ask Hugging Face about the base model; embeddings are never trained here.
    model.save_pretrained(folder, save_embedding_layers=False)


def save_adapter(trained: Path, tokenizer: Any, result: PhaseResult, title: str, working: Path) -> AdapterEntry:
    """Writes `adapter/` and gives it its name when it is whole; returns its entry for the result file.

    Args:
        trained: folder of the weights and their configuration.
    """
    target = working / ADAPTER
    partial = begin_folder(target)
    shutil.copyfile(trained / WEIGHTS, partial / WEIGHTS)
    config = json.loads((trained / CONFIG).read_text(encoding="utf-8"))
    write_json(partial / CONFIG, {**config, "base_model_name_or_path": result.base_model})
    tokenizer.save_pretrained(partial)
    write_text(partial / "README.md", card(result, title))
    finish_folder(partial, target)
    weights = target / WEIGHTS
    with safe_open(weights, framework="pt") as file:
        tensors = len(list(file.keys()))
    return AdapterEntry(ADAPTER, WEIGHTS, hash_file(weights), weights.stat().st_size, tensors)


def card(result: PhaseResult, title: str) -> str:
    """The model card: above all, what the adapter must be put on."""
    base = result.base_model
    lineage = result.lineage or []
    merged = [line for line in lineage if line.use == "merge"]
    listed = "\n".join(f"1. {line.phase}: {line.ref}, sha256 {line.sha256}" for line in merged)
    tokens = ", ".join(f"`{token}` (id {number})" for token, number in result.tokens.items())
    return CARD.format(
        base=base,
        chain=result.chain,
        phase=result.phase,
        title=title,
        belongs=(LATER if merged else FIRST).format(base=base, lineage=listed),
        continued="".join(CONTINUED.format(**asdict(line)) for line in lineage if line not in merged),
        tokens=TOKENS.format(tokens=tokens) if tokens else "",
        pad=result.pad_token,
        pad_id=result.pad_id,
    )


def save_validation(examples: Sequence[Example], working: Path) -> None:
    """Writes `validation.jsonl`, so that later phases can measure what was forgotten."""
    lines = (json.dumps(example, ensure_ascii=False) + "\n" for example in examples)
    write_text(working / VALIDATION, "".join(lines))
