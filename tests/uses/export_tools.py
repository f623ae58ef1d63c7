"""A project whose phases are finished without hours of training: random adapters, recorded as verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from kchain.demo.project import open_project, publish
from kchain.demo.tokenizer import MODEL
from kchain.orchestrator.journal.journal import Journal, Key
from kchain.orchestrator.judging.adapter import Expected, verify
from kchain.orchestrator.judging.judge import result_event
from kchain.phases import Chain, load_chain
from kchain.runtime import model, tokenizer
from kchain.runtime.files import hash_file
from kchain.server.publish import model_folder

PAD = {"token": "<|im_end|>", "id": 151645}


def base_of(project: Path) -> Path:
    """The folder of the base model on the project's own server."""
    return model_folder(project / ".kchain" / "local", *MODEL.split("/"))


def finish(folder: Path, phases: tuple[str, ...] = ("phase1", "phase2")) -> Path:
    """The tiny chain cut down to `phases`, its model published, every phase finished."""
    chain = open_project(folder)
    for phase in chain.phases:
        if phase.name not in phases:
            (folder / phase.file).unlink()
    publish(folder / ".kchain" / "local")
    for number, name in enumerate(phases):
        make_result(load_chain(folder), name, seed=number + 1)
    return folder


def make_result(chain: Chain, phase: str, seed: int) -> None:
    """Leave in runs/ what a session leaves, and record it as verified; the adapter's weights are random."""
    import torch

    base = base_of(chain.root)
    adapted = model.add_lora(model.load_base(base, "fp32", "none"), chain.phase(phase).lora.model_dump(), seed)
    torch.manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.1)
    folder = chain.root / "runs" / "local" / phase / "v1"
    folder.mkdir(parents=True)
    result = _result(chain, phase, sum(file.stat().st_size for file in base.glob("*.safetensors")))
    result["adapter"] = _save(adapted, tokenizer.load(base, PAD), chain, folder / "adapter")
    (folder / "kchain-result.json").write_text(json.dumps(result), encoding="utf-8")
    adapter = verify(folder, Expected(chain.phase(phase).lora, chain.model.source, PAD["id"]))
    where = f"runs/local/{phase}/v1/adapter"
    with Journal(chain.root, Key("local", chain.owner, chain.name)) as journal:
        event = result_event(
            adapter, version=1, kind="kernel", ref=chain.kernel(phase), source_folder="adapter", folder=where
        )
        journal.append(phase, "verified", **event)


def _save(adapted: Any, saved_tokenizer: Any, chain: Chain, folder: Path) -> dict[str, Any]:
    adapted.peft_config["default"].base_model_name_or_path = chain.model.source
    adapted.save_pretrained(folder, save_embedding_layers=False)
    saved_tokenizer.save_pretrained(folder)
    weights = folder / "adapter_model.safetensors"
    tensors = len(load_file(weights))
    return {"sha256": hash_file(weights), "bytes": weights.stat().st_size, "tensors": tensors}


def _result(chain: Chain, phase: str, base_bytes: int) -> dict[str, Any]:
    lineage = []
    for ancestor in chain.lineage(phase):
        weights = chain.root / "runs" / "local" / ancestor.name / "v1" / "adapter" / "adapter_model.safetensors"
        ref = chain.kernel(ancestor.name)
        lineage.append({"phase": ancestor.name, "kind": "kernel", "ref": ref, "sha256": hash_file(weights)})
    return {
        "format": 1,
        "bundle": "b" * 64,
        "chain": chain.name,
        "phase": phase,
        "status": "complete",
        "pad_token": PAD["token"],
        "pad_id": PAD["id"],
        "lora": chain.phase(phase).lora.model_dump(mode="json"),
        "base_model": chain.model.source,
        "lineage": lineage,
        "tokens": {},
        "metrics": {"loss_first": 9.0, "loss_last": 1.25, "token_accuracy": 0.5, "eval_loss": 1.5, "steps": 40},
        "examples": {"sources": [{"name": chain.phase(phase).data.sources[0].name, "kept": 77}]},
        "moved": {"adapter_bytes_in": 0, "base_bytes": base_bytes},
        "seconds": 12.0,
    }
