"""Checks 11 and 12: merging into a model of 15 GB, and judging and asking a trained one."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

from kchain.runtime import handover

from .bench import T4_MEMORY, Bench, part
from .findings import Findings
from .runs import ATTENTION, IGNORED, PAD, make_examples, parameters
from .shapes import sizes, words
from .training import of_half_a_billion

RANK, ALPHA, ADAPTERS = 16, 32, 3
SAMPLED = 6  # tensors that are computed again
ALLOWED = 2 * 10**8  # bytes over the start
SAMPLES, ANSWER = 8, 16


def merging(bench: Bench, found: Findings) -> None:
    """Check 11."""
    said = part(bench, "merge", str(bench.model("seven")), "real" if bench.cuda else "tiny")
    found.tell(**said)
    found.must("sampled tensors are equal bit for bit", said["equal"] == said["compared"] > 0)
    found.must("less than 0.2 GB over the start", said["anonymous"] is None or said["anonymous"] < ALLOWED)
    found.must("the merged model loads and computes numbers", len(said["probe"]["logits"]) > 0)


def judging(bench: Bench, found: Findings) -> None:
    """Check 12: of what check 1 trained."""
    run = of_half_a_billion(bench, bench.precision)
    run.must_train()
    said = part(bench, "judge", str(bench.model("half")), str(run.folder / handover.ADAPTER), bench.precision)
    for quantization, seen in said.items():
        far = abs(seen["loss"] - seen["plain"]) / seen["plain"]
        found.tell(**{quantization: {**seen, "apart": far}})
        found.must(f"{quantization}: the loss is a plain forward's to 1e-3", far <= 1e-3)
        found.must(f"{quantization}: {SAMPLES} samples of each side", seen["samples"] == SAMPLES)
        found.must(f"{quantization}: answers begin as a plain forward says", seen["first_equal"] == SAMPLES)


# --- the parts, in processes of their own


def main_merge(folder: str, base: str, how: str) -> dict[str, Any]:
    """Three adapters on q, k, v and o into the model; the most anonymous memory; the model loaded in 4 bits."""
    import torch

    from kchain.runtime import evaluate
    from kchain.runtime import model as models
    from kchain.runtime.adapters import Adapter
    from kchain.runtime.merge import merge

    shape = sizes("seven", how == "tiny")
    adapters = []
    for number in range(ADAPTERS):
        at = _adapter(Path(folder) / f"adapter-{number}", shape, number)
        adapters.append(Adapter(f"phase{number}", "kernel", f"me/{number}", at, "", 0, "merge"))
    lora = parameters(True)["lora"] | {"r": RANK, "alpha": ALPHA}
    with _Anonymous() as memory:
        begin = time.monotonic()
        merged = merge(Path(base), adapters, lora, Path(folder) / "merged")
        seconds = time.monotonic() - begin
    told = {"seconds": round(seconds, 1), "anonymous": memory.most, "bytes": _bytes(merged)}
    torch.set_num_threads(1)  # sums in the order of one thread, as the merge's
    compared = _compare(Path(base), merged, adapters)
    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, T4_MEMORY / torch.cuda.mem_get_info()[1]))
    model = models.load_base(merged, "fp16" if torch.cuda.is_available() else "fp32", "nf4")
    example = make_examples(1, (20, 20), words("seven", how == "tiny"))[0]
    probe = evaluate.probe(model, example)
    shutil.rmtree(merged)
    return {**told, "compared": len(compared), "equal": sum(compared), "probe": probe}


def _adapter(folder: Path, shape: dict[str, Any], seed: int) -> Path:
    """A random adapter of q, k, v and o, as PEFT writes it."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    hidden, head = shape["hidden_size"], shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"]
    queries, kv = head * shape["num_attention_heads"], head * shape["num_key_value_heads"]
    wide = {"q_proj": (hidden, queries), "k_proj": (hidden, kv), "v_proj": (hidden, kv), "o_proj": (queries, hidden)}
    tensors = {}
    for layer in range(shape["num_hidden_layers"]):
        for name, (inputs, outputs) in wide.items():
            module = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            tensors[f"{module}.lora_A.weight"] = 0.02 * torch.randn(RANK, inputs, generator=generator)
            tensors[f"{module}.lora_B.weight"] = 0.02 * torch.randn(outputs, RANK, generator=generator)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": ATTENTION, "lora_dropout": 0.0}
    (folder / "adapter_config.json").write_text(json.dumps({**config, "bias": "none"}))
    return folder


def _compare(base: Path, merged: Path, adapters: list[Any]) -> list[bool]:
    """Whether tensors all over the model are what fp32 gives, rounded once; and one that nothing is added to."""
    import torch
    from safetensors import safe_open

    files = sorted(base.glob("*.safetensors"))
    equal = []
    for file in files:
        with safe_open(file, "pt") as before, safe_open(merged / file.name, "pt") as after:
            names = [name for name in before.keys() if "self_attn" in name and name.endswith("proj.weight")]  # noqa: SIM118
            plain = next(name for name in before.keys() if "self_attn" not in name)  # noqa: SIM118
            equal.append(torch.equal(before.get_tensor(plain).half(), after.get_tensor(plain)))
            for name in names[:: max(1, len(names) // SAMPLED)]:
                total = before.get_tensor(name).float()
                for adapter in adapters:
                    with safe_open(adapter.folder / "adapter_model.safetensors", "pt") as own:
                        module = "base_model.model." + name.removesuffix(".weight")
                        a, b = (own.get_tensor(f"{module}.lora_{factor}.weight") for factor in "AB")
                    total += (b @ a).mul_(ALPHA / RANK)
                equal.append(torch.equal(total.half(), after.get_tensor(name)))
    return equal


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


class _Anonymous:
    """The most anonymous memory that this process took inside, over what it had; None where Linux does not tell."""

    def __enter__(self) -> _Anonymous:
        self.start, self.most, self.over = _anonymous(), None, threading.Event()
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        while self.start is not None and not self.over.wait(0.01):
            self.most = max(self.most or 0, (_anonymous() or 0) - self.start)


def _anonymous() -> int | None:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon")), None)


def main_judge(folder: str, base: str, adapter: str, precision: str) -> dict[str, Any]:
    """What the notebook's judge says of a model, and what a plain forward of the same says, whole and in 4 bits."""
    import torch

    from kchain.runtime import judge
    from kchain.runtime.judge import Subject
    from kchain.runtime.samples import Case, Split

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(min(1.0, T4_MEMORY / torch.cuda.mem_get_info()[1]))
    cuda, found = torch.cuda.is_available(), {}
    examples = make_examples(12, (40, 200) if cuda else (12, 40), words("half", not cuda), seed=11)
    for quantization in ("none", "nf4"):
        values = parameters(cuda, training__precision=precision, training__quantization=quantization)
        subject = Subject(Path(base), values, Path(adapter), None)
        case = Case(Split("phase1", examples), [], [], False, {}, SAMPLES, ANSWER, 4, time.monotonic() + 600)
        judged = judge.Judge(subject, case, PAD, lambda ids: " ".join(map(str, ids))).judge()
        after = judged.evaluation["splits"][-1]["after"]
        drawn = judged.evaluation["samples"]
        found[precision if quantization == "none" else quantization] = {
            "loss": after["loss"],
            "plain": _plain_loss(subject.model, examples),
            "samples": len(drawn),
            "first_equal": sum(_begins_as(subject.model, one) for one in drawn),
            "absent": judged.evaluation["absent"],
        }
        del subject
        torch.cuda.empty_cache()
    return found


def _plain_loss(model: Any, examples: list[Any]) -> float:
    """The mean loss of learned tokens, example by example, from whole logits in fp32."""
    import torch

    total = count = 0.0
    with torch.no_grad():
        for example in examples:
            ids = torch.from_numpy(example.ids).long().to(model.device)
            labels = torch.from_numpy(example.labels).long().to(model.device)
            logits = model(input_ids=ids[None]).logits[0, :-1].float()
            learned = labels[1:] != IGNORED
            total += torch.nn.functional.cross_entropy(logits[learned], labels[1:][learned], reduction="sum").item()
            count += int(learned.sum())
    return total / count


def _begins_as(model: Any, sample: dict[str, Any]) -> bool:
    """Whether the first token of an answer is the likeliest of a plain forward, or as good as that."""
    import torch

    prompt = [int(word) for word in sample["prompt"].split()]
    answer = sample["after"]["text"].split()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt], device=model.device)).logits[0, -1].float()
    first = int(answer[0]) if answer else PAD
    return bool(logits.max() - logits[first] <= 1e-2 * logits.abs().max())
