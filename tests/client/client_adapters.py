"""Adapters to verify: made by hand, byte by byte, so that they can be wrong in every way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kchain.orchestrator.journal.state import Ancestor
from kchain.orchestrator.judging.adapter import Expected
from kchain.phases import Lora

LORA = Lora(r=4, alpha=8, dropout=0.05, targets=("q_proj", "v_proj"))
BASE = "qwen-lm/qwen2.5/transformers/0.5b-instruct/1"
BUNDLE = "b" * 64
LINEAGE = (Ancestor("phase1", "1" * 64), Ancestor("phase2", "2" * 64))
EXPECTED = Expected(LORA, BASE, 151645, "<|im_end|>", bundle_hash=BUNDLE, lineage=LINEAGE)

Arrays = dict[str, np.ndarray[Any, Any]]


def weights(layers: int = 2, r: int = 4, width: int = 16, dtype: str = "<f4") -> Arrays:
    """A and B of q_proj (width -> width) and v_proj (width -> width / 2) in every layer."""
    random = np.random.default_rng(0)
    found: Arrays = {}
    for layer in range(layers):
        for target, out in (("q_proj", width), ("v_proj", width // 2)):
            module = f"base_model.model.model.layers.{layer}.self_attn.{target}"
            found[f"{module}.lora_A.weight"] = random.normal(size=(r, width)).astype(dtype)
            found[f"{module}.lora_B.weight"] = random.normal(size=(out, r)).astype(dtype)
    return found


def tensor_bytes(arrays: Arrays, names: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file; `names` says a dtype's word where numpy has none (uint16 for BF16)."""
    words = {"<f4": "F32", "<f2": "F16", "<f8": "F64", "<u2": "BF16", "<i4": "I32"} | dict(names or {})
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position, data = 0, b""
    for name, array in arrays.items():
        raw = array.tobytes()
        offsets = [position, position + len(raw)]
        header[name] = {"dtype": words[array.dtype.str], "shape": list(array.shape), "data_offsets": offsets}
        position += len(raw)
        data += raw
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def config(**changes: Any) -> dict[str, Any]:
    """An adapter_config.json as peft writes it."""
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": BASE,
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.05,
        "bias": "none",
        "target_modules": ["v_proj", "q_proj"],
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "use_dora": False,
        "use_rslora": False,
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    return fields | changes


def result(data: bytes, tensors: int, **changes: Any) -> dict[str, Any]:
    """The result file of a session that made these bytes."""
    fields = {
        "format": 1,
        "bundle": BUNDLE,
        "chain": "qwen",
        "phase": "phase3",
        "status": "complete",
        "reason": None,
        "pad_token": "<|im_end|>",
        "pad_id": 151645,
        "lora": {"r": 4, "alpha": 8, "dropout": 0.05, "targets": ["q_proj", "v_proj"], "bias": "none"},
        "base_model": BASE,
        "lineage": [
            {"phase": "phase1", "kind": "kernel", "ref": "ada/one", "sha256": "1" * 64},
            {"phase": "phase2", "kind": "kernel", "ref": "ada/two", "sha256": "2" * 64},
        ],
        "adapter": {
            "folder": "adapter",
            "file": "adapter_model.safetensors",
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "tensors": tensors,
        },
        "metrics": {"loss_first": 2.0, "loss_last": 0.5, "token_accuracy": 0.8, "all_epochs": True},
    }
    return fields | changes


def write_outputs(
    folder: Path,
    arrays: Arrays | None = None,
    data: bytes | None = None,
    config_changes: Mapping[str, Any] | None = None,
    result_changes: Mapping[str, Any] | None = None,
) -> Path:
    """The outputs of a session: adapter/ and kchain-result.json."""
    arrays = weights() if arrays is None else arrays
    data = tensor_bytes(arrays) if data is None else data
    adapter = folder / "adapter"
    adapter.mkdir(parents=True, exist_ok=True)
    (adapter / "adapter_model.safetensors").write_bytes(data)
    (adapter / "adapter_config.json").write_text(json.dumps(config(**(config_changes or {}))))
    found = result(data, len(arrays), **(result_changes or {}))
    (folder / "kchain-result.json").write_text(json.dumps(found))
    return folder
