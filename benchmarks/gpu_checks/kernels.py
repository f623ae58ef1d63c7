"""Checks 8 and 9: the chunked loss beside others, and which attention a T4's torch computes."""

from __future__ import annotations

import functools
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .bench import T4_MEMORY, Bench, part
from .findings import Findings
from .runs import PAD, make_examples, parameters

SIZES = ((2048, 896, 151_936), (16_384, 896, 151_936))  # rows, width, vocabulary
TINY_SIZES = ((64, 32, 1024), (256, 32, 1024))
SCALE = 65536.0  # of the loss, as a gradient scaler multiplies it
REFERENCES = 256  # rows that are computed in fp64
REPEATED = 5
ROWS = (1, 2, 16)  # examples of a packed row


def chunked_loss(bench: Bench, found: Findings) -> None:
    """Check 8, alone on the card."""
    said = part(bench, "loss", bench.precision)
    found.tell(**said["sizes"])
    for why in said["skipped"]:
        found.skip(why)
    for size, sides in said["sizes"].items():
        ours, stock = sides["kchain"], sides["stock"]
        found.must(f"{size}: the gradient is as exact as stock's", ours["error"] <= stock["error"])
        found.must(f"{size}: losses agree to 1e-4", abs(ours["loss"] - stock["loss"]) <= 1e-4 * stock["loss"])
        if bench.cuda:
            found.must(f"{size}: less memory than stock", ours["peak"] < stock["peak"])


def attention(bench: Bench, found: Findings) -> None:
    """Check 9."""
    bench.need_cuda("a profile of kernels")
    said = part(bench, "attention", str(bench.model("small")))
    found.tell(**said)
    for count in ROWS:
        seen = said[f"rows of {count}"]
        found.must(f"rows of {count}: no plain softmax", not seen["softmax"])
        found.must(f"rows of {count}: a fused kernel", bool(seen["fused"]))
    found.must("without kchain's choice there is one (or this check is blind)", bool(said["grouped"]["softmax"]))


# --- the parts, in processes of their own


def main_loss(folder: str, precision: str) -> dict[str, Any]:
    """Error of the gradient against fp64, loss, milliseconds and bytes of each way to compute it."""
    import torch
    from torch.nn import functional

    from kchain.runtime import loss as losses
    from kchain.runtime.model import DTYPES

    cuda, dtype = torch.cuda.is_available(), DTYPES[precision]
    device = "cuda" if cuda else "cpu"
    answer: dict[str, Any] = {"sizes": {}, "skipped": []}
    for rows, width, vocabulary in SIZES if cuda else TINY_SIZES:
        torch.manual_seed(rows)
        head = torch.nn.Linear(width, vocabulary, bias=False, device=device, dtype=dtype).requires_grad_(False)
        head.weight.normal_(std=0.02)
        states = (4 * torch.randn(rows, width, device=device)).to(dtype)
        targets = torch.randint(0, vocabulary, (rows,), device=device)

        def ours(given: Any, head: Any = head, targets: Any = targets, size: int = losses.CHUNK // vocabulary) -> Any:
            return losses._judge(head, given, targets, size)[0] / len(targets)

        def stock(given: Any, head: Any = head, targets: Any = targets) -> Any:
            return functional.cross_entropy(head(given).float(), targets)

        sides: dict[str, Callable[[Any], Any]] = {"kchain": ours, "stock": stock}
        if cuda and importlib.util.find_spec("liger_kernel"):
            from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

            liger = LigerFusedLinearCrossEntropyLoss()
            sides["Liger"] = functools.partial(_by_liger, liger, head.weight, targets)
        exact = _exact(head.weight, states, targets)
        found: dict[str, Any] = {}
        for name, compute in sides.items():
            try:
                found[name] = _measure(compute, states, exact)
            except Exception as error:  # of another's kernel, or of a card too small for all logits
                if name == "kchain":
                    raise
                answer["skipped"].append(f"{rows} rows, {name}: {type(error).__name__}: {str(error)[:150]}")
        answer["sizes"][f"{rows} x {vocabulary}"] = found
    if "Liger" not in found:
        answer["skipped"].append("Liger: not installed, or without a CUDA card")
    return answer


def _by_liger(liger: Any, weight: Any, targets: Any, given: Any) -> Any:
    return liger(weight, given, targets)


def _measure(compute: Callable[[Any], Any], states: Any, exact: Any) -> dict[str, Any]:
    import torch

    cuda = states.is_cuda
    times, gradient, loss = [], states, states
    if cuda:
        torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated() if cuda else 0
    for turn in range(REPEATED if cuda else 1):
        given = states.clone().requires_grad_()
        if cuda:
            torch.cuda.synchronize()
            if turn == 1:
                torch.cuda.reset_peak_memory_stats()
        begin = time.perf_counter()
        loss = compute(given)
        (loss * SCALE).backward()
        if cuda:
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - begin))
        gradient = given.grad
    picked, expected = exact
    error = ((gradient[picked].double() / SCALE - expected).norm() / expected.norm()).item()
    peak = torch.cuda.max_memory_allocated() - before if cuda else None
    return {"error": error, "loss": loss.item(), "milliseconds": round(min(times), 2), "peak": peak}


def _exact(weight: Any, states: Any, targets: Any) -> tuple[Any, Any]:
    """Some rows, and their gradient of the mean loss in fp64."""
    import torch

    picked = torch.linspace(0, len(states) - 1, min(REFERENCES, len(states)), device=states.device).long()
    wide = weight.double()
    share = torch.softmax(states[picked].double() @ wide.T, dim=-1)
    share[torch.arange(len(picked), device=states.device), targets[picked]] -= 1
    return picked, share @ wide / len(states)


def main_attention(folder: str, base: str) -> dict[str, Any]:
    """Names of the kernels of a step that say how attention was computed, by examples of a row."""
    import torch
    from sitecustomize import keep_to_a_t4  # type: ignore[attr-defined]
    from transformers.integrations import sdpa_attention

    from kchain.runtime import model as models
    from kchain.runtime import train as training

    grouped = sdpa_attention.use_gqa_in_sdpa
    keep_to_a_t4(T4_MEMORY, t4=True)
    bare = models.load_base(Path(base), "fp16", "none")
    collate = training.prepare(bare, PAD)
    model = models.add_lora(bare, parameters(True)["lora"], seed=0).train()

    def kernels(count: int) -> dict[str, list[str]]:
        from torch.profiler import ProfilerActivity, profile

        batch = collate(make_examples(count, (100, 200), 8192, seed=count))
        inputs = {name: value.cuda() for name, value in batch.items()}
        with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as seen:
            with torch.autocast("cuda", torch.float16):
                loss = model(**inputs).loss
            loss.backward()
            torch.cuda.synchronize()
        names = {event.name for event in seen.events() if "CUDA" in str(event.device_type)}
        fused = [name[:80] for name in sorted(names) if "fmha" in name.lower() or "flash" in name.lower()]
        return {"softmax": [name[:80] for name in sorted(names) if "softmax" in name.lower()], "fused": fused}

    kernels(2)  # what is done once
    found: dict[str, Any] = {f"rows of {count}": kernels(count) for count in ROWS}
    sdpa_attention.use_gqa_in_sdpa = grouped
    torch.cuda.get_device_capability = lambda device=None: (9, 0)  # type: ignore[assignment]
    return {**found, "grouped": kernels(1)}
