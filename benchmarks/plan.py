"""The memory plan against every published and measured figure kchain knows: `python benchmarks/plan.py [--json]`.

Nothing is run: the figures are what their authors printed. A GB is read as 10**9 bytes, a GiB as 2**30. An error is
(plan - figure) / figure. "at least" rows are lower bounds (their examples are shorter than the cap): only a plan below
them is an error.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from statistics import median
from typing import Any

from kchain.phases.accelerators import GIB
from kchain.phases.memory import Memory, memory
from kchain.phases.models import QWEN25, Shape

GB = 10**9
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL = (*ATTENTION, "gate_proj", "up_proj", "down_proj")

# config.json of each; Qwen (the first) has Qwen2's layers under other names, its head is not the embedding.
QWEN1 = {
    "1.8B": Shape(2048, 24, 16, 16, 5504, 151936, False),
    "7B": Shape(4096, 32, 32, 32, 11008, 151936, False),
    "14B": Shape(5120, 40, 40, 40, 13696, 152064, False),
}
QWEN3_4B = Shape(2560, 36, 32, 8, 9728, 151936, True, head=128, biases=(), qk_norm=True)
LLAMA3_8B = Shape(4096, 32, 32, 8, 14336, 128256, False, biases=())
LLAMA32_3B = Shape(3072, 28, 24, 8, 8192, 128256, True, biases=())
# litgpt keeps the head of Llama 3.2 apart from the embedding.
LITGPT_1B = Shape(2048, 16, 32, 8, 8192, 128256, False, biases=())
LITGPT_3B = Shape(3072, 28, 24, 8, 8192, 128256, False, biases=())
# Qwen2.5-0.5B's widths with four layers, as measured on a CPU.
FOUR_LAYERS = Shape(896, 4, 14, 2, 4864, 151936, True)

QWEN_README = "QwenLM/Qwen README, profiling (A100)"
UNSLOTH = "Unsloth notebook (T4)"
LITGPT = "litgpt config_hub README (A10G)"
TORCHTUNE = "torchtune README"
MEASURED = "measured on a CPU"


@dataclass(frozen=True)
class Figure:
    """One published or measured figure, in bytes, and the setting it belongs to.

    Attributes:
        kind: "peak" of a whole step; "at least": a lower bound of it; "load": before the first step; "weights";
            "step": what a step adds to the loaded model.
        apart: why the figure is shown but not counted, empty where it is.
    """

    name: str
    kind: str
    published: float
    source: str
    setting: dict[str, Any]
    apart: str = ""

    @property
    def planned(self) -> int:
        """The plan's bytes for the same."""
        plan = memory(**self.setting)
        return {"load": plan.load, "weights": plan.weights, "step": _step(plan)}.get(self.kind, plan.total)

    @property
    def error(self) -> float:
        """As a share of the figure."""
        error = self.planned / self.published - 1
        return min(0.0, error) if self.kind == "at least" else error


def _step(plan: Memory) -> int:
    return plan.optimizer + plan.activations + plan.logits


def _setting(shape: Shape, quantization: str, batch: int, length: int, **changes: Any) -> dict[str, Any]:
    usual = {
        "shape": shape, "precision": "fp16", "quantization": quantization, "batch": batch, "length": length,
        "rank": 16, "targets": ALL, "optimizer": "adamw_torch", "checkpointing": True,
    }  # fmt: skip
    return usual | changes


def qwen_readme() -> list[Figure]:
    """finetune.py: rank 64, every linear module, AdamW, checkpointing, flash attention, all logits."""
    lengths = (256, 512, 1024, 2048, 4096, 8192)
    rows = [
        ("1.8B", "nf4", lengths, (5.8, 6.0, 6.6, 7.8, 10.2, 15.8)),
        ("1.8B", "none", lengths, (6.7, 7.4, 8.4, 11.0, 16.2, 21.8)),
        ("7B", "nf4", lengths[1:], (11.5, 12.3, 13.9, 16.9, 23.5)),
        ("7B", "none", (2048,), (23.8,)),
        ("14B", "nf4", (2048,), (19.9,)),
    ]
    found = []
    for size, quantization, counts, published in rows:
        name = f"Qwen-{size} {'Q-LoRA' if quantization == 'nf4' else 'LoRA'}"
        for length, figure in zip(counts, published, strict=True):
            setting = _setting(QWEN1[size], quantization, 1, length, rank=64)
            found.append(Figure(f"{name} 1 x {length}", "peak", figure * GB, QWEN_README, setting))
    embeddings = _setting(QWEN1["1.8B"], "none", 1, 256, rank=64)
    why = "trains embedding and head, which kchain does not"
    found.append(Figure("Qwen-1.8B LoRA 1 x 256, embeddings", "peak", 13.7 * GB, QWEN_README, embeddings, why))
    return found


def t4() -> list[Figure]:
    """Rank 16, every linear module, 8-bit AdamW, the loss in chunks; memory as CUDA's allocator reserved it."""
    eight = {"optimizer": "adamw_8bit", "chunk": 1024}
    qwen = _setting(QWEN25["7b"], "nf4", 2, 2048, **eight)
    llama = _setting(LLAMA3_8B, "nf4", 2, 2048, **eight)
    qwen3 = _setting(QWEN3_4B, "none", 1, 2048, **eight)
    aware = "quantization-aware training keeps a rounded copy of every weight, which kchain does not"
    llama2 = _setting(Shape(4096, 32, 32, 32, 11008, 32000, False, biases=()), "nf4", 2, 2048)
    unknown = "batch and length are not told"
    blog = "huggingface/blog pull 1726 (T4)"
    return [
        Figure("Qwen2.5-7B NF4", "weights", 5.44 * GIB, "a published T4 walk-through", qwen),
        Figure("Qwen2.5-7B QLoRA 2 x 2048", "load", 5.764 * GIB, UNSLOTH, qwen),
        Figure("Qwen2.5-7B QLoRA 2 x 2048", "at least", 7.893 * GIB, UNSLOTH, qwen),
        Figure("Llama-3-8B QLoRA 2 x 2048", "load", 5.594 * GIB, UNSLOTH, llama),
        Figure("Llama-3-8B QLoRA 2 x 2048", "at least", 7.535 * GIB, UNSLOTH, llama),
        Figure("Qwen3-4B LoRA + QAT 1 x 2048", "load", 8.547 * GIB, UNSLOTH, qwen3),
        Figure("Qwen3-4B LoRA + QAT 1 x 2048", "at least", 14.135 * GIB, UNSLOTH, qwen3, aware),
        *[Figure(f"Llama-2-7B QLoRA {name}", "peak", gb * GB, blog, llama2, unknown)
          for name, gb in (("OASST", 10.4), ("OASST, Unsloth", 8.4), ("Alpaca", 7.1), ("Alpaca, Unsloth", 6.4))],
    ]  # fmt: skip


def larger_cards() -> list[Figure]:
    """litgpt: rank 32 on q and v, activations kept, all logits. torchtune: every module, the loss in eight chunks."""
    lit = {"rank": 32, "targets": ("q_proj", "v_proj"), "checkpointing": False}
    eighth = {"chunk": 2 * 2048 // 8, "rank": 8}
    three = {"chunk": 2 * 4096 // 8, "rank": 64, "targets": ("q_proj", "v_proj", "o_proj", *ALL[4:])}
    return [
        Figure("Llama-3.2-1B LoRA 1 x 512", "peak", 4.49 * GB, LITGPT, _setting(LITGPT_1B, "none", 1, 512, **lit)),
        Figure("Llama-3.2-1B QLoRA 2 x 512", "peak", 5.53 * GB, LITGPT, _setting(LITGPT_1B, "nf4", 2, 512, **lit)),
        Figure("Llama-3.2-3B QLoRA 2 x 512", "peak", 10.30 * GB, LITGPT, _setting(LITGPT_3B, "nf4", 2, 512, **lit)),
        Figure(
            "Llama-3.1-8B QLoRA 2 x 2048", "peak", 7.4 * GIB, TORCHTUNE, _setting(LLAMA3_8B, "nf4", 2, 2048, **eighth)
        ),
        Figure(
            "Llama-3.1-8B LoRA 2 x 2048", "peak", 16.2 * GIB, TORCHTUNE, _setting(LLAMA3_8B, "none", 2, 2048, **eighth)
        ),
        Figure(
            "Llama-3.2-3B LoRA 2 x 4096", "peak", 8.5 * GIB, TORCHTUNE, _setting(LLAMA32_3B, "none", 2, 4096, **three)
        ),
        Figure(
            "Llama-3.2-3B QLoRA 2 x 4096", "peak", 4.6 * GIB, TORCHTUNE, _setting(LLAMA32_3B, "nf4", 2, 4096, **three)
        ),
    ]


def measured() -> list[Figure]:
    """Growth of the process in one step, every token labelled."""
    setting = _setting(FOUR_LAYERS, "none", 2, 1024, precision="fp32", targets=ATTENTION)
    return [
        Figure("4 layers 2 x 1024, all logits", "step", 3861e6, MEASURED, setting),
        Figure("4 layers 2 x 1024, chunks of 512", "step", 1213e6, MEASURED, setting | {"chunk": 512}),
        Figure("4 layers 2 x 1024, chunks of 256", "step", 696e6, MEASURED, setting | {"chunk": 256}),
    ]


def figures() -> list[Figure]:
    """Every figure."""
    return [*qwen_readme(), *t4(), *larger_cards(), *measured()]


def summary(rows: list[Figure]) -> dict[str, Any]:
    """Worst and median error of the rows that count, and how far the load is from published loads, in GiB."""
    counted = [row for row in rows if not row.apart]
    errors = [abs(row.error) for row in counted]
    whole = [abs(row.error) for row in counted if row.kind in ("peak", "at least")]
    loads = [(row.planned - row.published) / GIB for row in rows if row.kind in ("load", "weights")]
    worst = max(counted, key=lambda row: abs(row.error))
    return {
        "figures": len(counted),
        "apart": len(rows) - len(counted),
        "worst": round(max(errors), 4),
        "worst_figure": f"{worst.name}, {worst.kind}",
        "median": round(median(errors), 4),
        "peak_median": round(median(whole), 4),
        "load_lowest_gib": round(min(loads), 3),
        "load_highest_gib": round(max(loads), 3),
    }


def print_table(rows: list[Figure]) -> None:
    """For people, and for docs/memory-plan.md."""
    print("| figure | of | published | plan | error | source |\n|:--|:--|--:|--:|--:|:--|")
    for row in rows:
        error = f"not counted: {row.apart}" if row.apart else f"{100 * row.error:+.0f} %"
        sizes = f"{row.published / GIB:.2f} GiB | {row.planned / GIB:.2f} GiB"
        print(f"| {row.name} | {row.kind} | {sizes} | {error} | {row.source} |")


def main() -> None:
    """Print the table, the summary, and with --json the summary as the last line."""
    parser = argparse.ArgumentParser(description="The memory plan against published and measured figures.")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on the last line")
    as_json = parser.parse_args().json
    rows = figures()
    print_table(rows)
    found = summary(rows)
    print(
        f"\n{found['figures']} figures: worst error {100 * found['worst']:.0f} % ({found['worst_figure']}), "
        f"median {100 * found['median']:.0f} %; load {found['load_lowest_gib']:+.2f} to "
        f"{found['load_highest_gib']:+.2f} GiB from what was published"
    )
    if as_json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
