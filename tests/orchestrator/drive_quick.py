"""kchain with notebooks that train nothing: bundles, client, server, sessions and verification are real.

Run as a program it is the `kchain` command line with such notebooks: `python drive_quick.py watch --yes`. The notebook
says what the runtime says, checks that every adapter of its lineage is mounted, and saves a small sound adapter. The
description of a phase tells it how many sessions it takes ("3 sessions"), and how to go wrong: "raises", "partial",
"zero", "slow", "bad pad", "no result", "breaks later" (in its second session).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nbformat import v4

import kchain.bundle
from kchain.bundle import Bundle, canonical_hash, code_hash
from kchain.bundle.cells import stamp, text
from kchain.phases import Chain

_real_build = kchain.bundle.build

NOTEBOOK = r"""
import hashlib, json, os, re, struct, time
from pathlib import Path
import numpy as np

root = Path(os.environ.get("KCHAIN_KAGGLE_ROOT", "/kaggle"))
how, lora = PARAMETERS["description"], PARAMETERS["lora"]

def tell(event, **rest):
    print("kchain: " + json.dumps({"event": event, **rest}), flush=True)

def find(source):
    owner, slug = source["ref"].split("/")
    kind = "notebooks" if source["kind"] == "kernel" else "datasets"
    for mount in (root / "input" / kind / owner / slug, root / "input" / slug):
        file = mount / source["folder"] / "adapter_model.safetensors"
        if file.exists():
            return hashlib.sha256(file.read_bytes()).hexdigest()
    raise FileNotFoundError(f"{source['ref']} is not mounted")

def sha256(data):
    return hashlib.sha256(data).hexdigest()

def write_result(**rest):
    head = {"format": 1, "bundle": BUNDLE, "session": session, "stopped": None, "checkpoint": None}
    (root / "working" / "kchain-result.json").write_text(json.dumps({**head, **rest}))

continuation = PARAMETERS["continuation"]
session = continuation["session"] if continuation else 1
sessions = int((re.search(r"(\d) sessions", how) or ["", "1"])[1])
tell("stage", stage="preflight", seconds_since_start=0.1)
if continuation:
    kind = "notebooks" if continuation["kind"] == "kernel" else "datasets"
    place = root / "input" / kind / continuation["ref"] / continuation["folder"]
    manifest = place / "manifest.json"
    if not manifest.exists() or sha256(manifest.read_bytes()) != continuation["sha256"]:
        write_result(status="failed", reason=f"preflight: continuation: the checkpoint is not in {place}")
        raise FileNotFoundError(f"the checkpoint is not in {place}")
    assert (place / "state.bin").read_text() == f"state after session {session - 1}"
lineage = [{"phase": source["phase"], "kind": source["kind"], "ref": source["ref"], "sha256": find(source)}
           for source in PARAMETERS["lineage"]]
if "raises" in how or (session > 1 and "breaks later" in how):
    raise RuntimeError("CUDA out of memory. Tried to allocate 3.24 GiB")
tell("stage", stage="train", seconds_since_start=0.2)
if session < sessions:
    state = f"state after session {session}".encode()
    place = root / "working" / "checkpoint"
    place.mkdir()
    (place / "state.bin").write_bytes(state)
    manifest = json.dumps({"step": session, "steps": 4, "files": {"state.bin": sha256(state)}}).encode()
    (place / "manifest.json").write_bytes(manifest)
    time.sleep(1.0 if "slow" in how else 0.0)
    write_result(status="partial", stopped="time", reason="its own time limit", lineage=lineage, seconds=1.0,
                 checkpoint={"folder": "checkpoint", "sha256": sha256(manifest), "bytes": 1, "step": session,
                             "steps": 4}, metrics={"steps": session, "all_epochs": False},
                 pad_id=PARAMETERS["pad"]["id"])
    raise SystemExit(0)
for step in range(session, 5):
    tell("step", step=step, steps=4, epoch=1.0, loss=2.0 / step, learning_rate=1e-4, seconds=0.1, memory_bytes=0)
    time.sleep(1.5 if "slow" in how else 0.02)

tensors = {}
generator = np.random.default_rng(abs(hash(PARAMETERS["phase"])) % 2**32 + os.getpid())
for target in lora["targets"]:
    name = f"base_model.model.model.layers.0.self_attn.{target}"
    zero = "zero" in how
    tensors[f"{name}.lora_A.weight"] = generator.normal(size=(lora["r"], 8)).astype("float32")
    tensors[f"{name}.lora_B.weight"] = (generator.normal(size=(8, lora["r"])) * (not zero)).astype("float32")
header, blob = {}, b""
for name, tensor in tensors.items():
    header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(blob), len(blob) + tensor.nbytes]}
    blob += tensor.tobytes()
packed = json.dumps(header).encode()
adapter = root / "working" / "adapter"
adapter.mkdir(parents=True, exist_ok=True)
(adapter / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(packed)) + packed + blob)
config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": lora["r"], "lora_alpha": lora["alpha"],
          "lora_dropout": lora["dropout"], "bias": lora["bias"], "target_modules": list(lora["targets"]),
          "base_model_name_or_path": PARAMETERS["model"]["source"]}
(adapter / "adapter_config.json").write_text(json.dumps(config))
weights = (adapter / "adapter_model.safetensors").read_bytes()
partial = "partial" in how
result = {
    "chain": PARAMETERS["chain"], "phase": PARAMETERS["phase"],
    "status": "partial" if partial else "complete", "reason": "its own time limit" if partial else None,
    "pad_token": PARAMETERS["pad"]["token"], "pad_id": 151654 if "bad pad" in how else PARAMETERS["pad"]["id"],
    "lora": lora, "base_model": PARAMETERS["model"]["source"], "lineage": lineage,
    "adapter": {"folder": "adapter", "file": "adapter_model.safetensors", "sha256": hashlib.sha256(weights).hexdigest(),
                "bytes": len(weights), "tensors": len(tensors)},
    "metrics": {"loss_first": 2.0, "loss_last": 0.5, "token_accuracy": 0.8, "eval_loss": 0.6, "steps": 4, "epochs": 1.0,
                "all_epochs": not partial},
    "examples": {"train": 8, "validation": 2, "truncated": 0, "sources": []},
    "moved": {"adapter_bytes_in": 0, "base_bytes": 1_000_000_000}, "versions": {}, "seconds": 1.0,
    "peak_memory_bytes": 0, "probe": {},
}
if "no result" not in how:
    write_result(**result)
tell("result", status=result["status"], loss_first=2.0, loss_last=0.5, token_accuracy=0.8, steps=4, seconds=1.0)
"""


def quick_build(chain: Chain, phase_name: str, target: str, adopted: Mapping[str, Any]) -> Bundle:
    """The real bundle with its parameters, its kernel sources, and two cells in place of the training."""
    real = _real_build(chain, phase_name, target, adopted)
    parameters = next(cell for cell in real.notebook["cells"] if text(cell).startswith("BUNDLE = "))
    cells = [parameters, v4.new_code_cell(NOTEBOOK.strip(), id=f"{phase_name}-quick")]
    notebook = v4.new_notebook(cells=cells, metadata=real.notebook["metadata"])
    metadata = {**real.metadata, "model_sources": [], "dataset_sources": _adopted_sources(real, adopted)}
    found = canonical_hash(notebook, metadata, real.timeout)
    stamp(notebook, found)
    return replace(real, notebook=notebook, metadata=metadata, hash=found, code_hash=code_hash(notebook))


def _adopted_sources(bundle: Bundle, adopted: Mapping[str, Any]) -> list[str]:
    mounted = {source.ref for source in adopted.values() if source.kind == "dataset"}
    return [ref for ref in bundle.metadata["dataset_sources"] if ref in mounted]


def make_project(root: Path, phases: int = 2, owner: str = "someone", how: dict[str, str] | None = None) -> Path:
    """A project whose phases are one, two, ... on the local target."""
    (root / "phases").mkdir(parents=True)
    (root / "kchain.toml").write_text(
        f'[chain]\nname = "quick"\nowner = "{owner}"\ntarget = "local"\naccelerator = "cpu"\nsession_timeout = "10m"\n'
        '[model]\nsource = "owner/model/transformers/tiny/1"\n[lora]\nr = 2\nalpha = 4\n',
        encoding="utf-8",
    )
    names = ["one", "two", "three", "four"][:phases]
    for index, name in enumerate(names):
        write_phase(root, name, names[index - 1] if index else None, (how or {}).get(name, "Teaches it."))
    return root


def write_phase(root: Path, name: str, after: str | None, how: str) -> None:
    (root / "phases" / f"{name}.toml").write_text(
        f'title = "Quick phase {name}"\ndescription = "{how}"\n'
        + (f'after = "{after}"\n' if after else "")
        + "[data]\n"
        '[[data.sources]]\nname = "x"\ndataset = "a/b"\nfile = "c.jsonl"\n'
        'fields = { prompt = "p", completion = "c" }\n',
        encoding="utf-8",
    )


if __name__ == "__main__":
    from kchain.cli import main

    kchain.bundle.build = quick_build
    main()
