"""The memory plan against every published and measured figure kchain knows: `python benchmarks/plan.py [--json]`.

Nothing is run: the figures are what their authors printed. A GB is read as 10**9 bytes, a GiB as 2**30. An error is
(plan - figure) / figure. "at least" rows are lower bounds (their examples are shorter than the cap): only a plan below
them is an error. None of these stacks computes its loss as kchain's notebook does, so each row is planned with the loss
of its own stack; what the notebook's own steps take is measured by benchmarks/plan_measured.py.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from statistics import median
from typing import Any

from kchain.phases.machines import GIB
from kchain.phases.memory import Loss, memory
from kchain.phases.models import Shape, known

QWEN3, QWEN25 = known("qwen-3"), known("qwen2.5")

GB = 10**9
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL = (*ATTENTION, "gate_proj", "up_proj", "down_proj")

# config.json of each; Qwen (the first) has Qwen2's layers under other names, its head is not the embedding.
QWEN1 = {
    "1.8B": Shape(2048, 24, 16, 16, 5504, 151936, False),
    "7B": Shape(4096, 32, 32, 32, 11008, 151936, False),
    "14B": Shape(5120, 40, 40, 40, 13696, 152064, False),
}
LLAMA3_8B = Shape(4096, 32, 32, 8, 14336, 128256, False, biases=())
LLAMA32_3B = Shape(3072, 28, 24, 8, 8192, 128256, True, biases=())
# litgpt keeps the head of Llama 3.2 apart from the embedding.
LITGPT_1B = Shape(2048, 16, 32, 8, 8192, 128256, False, biases=())
LITGPT_3B = Shape(3072, 28, 24, 8, 8192, 128256, False, biases=())
# transformers' own: log_softmax keeps its fp32 result, its backward pass has two gradients of that size beside it.
# Source: torch's cross_entropy. 2.6 copies were measured above what the body took.
STOCK = Loss(whole=3 * 4)
# The losses of other stacks. In plain half precision (DeepSpeed, fp16) no copy is wider than that.
HALF = Loss(whole=3 * 2)
# Unsloth's and torchtune's own: a chunk at a time in fp32; torchtune keeps all scores in bf16.
UNSLOTH_LOSS = Loss(part=3 * 4, chunk=1024, state=4)
# Two buffers of 2e8 half-precision gradients, as finetune/ds_config_zero2.json asks for with overlap_comm.
ZERO2 = 2 * 2 * 2e8

QWEN_README = "QwenLM/Qwen README, profiling (A100)"
UNSLOTH = "Unsloth (T4)"
LITGPT = "litgpt (A10G)"
TORCHTUNE = "torchtune"


@dataclass(frozen=True)
class Figure:
    """One published or measured figure, in bytes, and the setting it belongs to.

    Attributes:
        kind: "peak" of a whole step; "at least": a lower bound of it; "allocated": a peak without what is no tensor's
            (CUDA's context, the allocator's pool); "least": weights and adapter alone; "load": before the first step;
            "footprint": transformers' count of the weights, which leaves out the constants of 4-bit weights.
        more: bytes that the row's stack takes and kchain does not.
        apart: why the figure is shown but not counted, empty where it is.
    """

    name: str
    kind: str
    published: float
    source: str
    setting: dict[str, Any]
    apart: str = ""
    more: float = 0.0

    @property
    def planned(self) -> float:
        """The plan's bytes for the same."""
        plan = memory(**self.setting)
        if self.kind == "footprint":
            shape: Shape = self.setting["shape"]
            return shape.linear_parameters / 2 + 2 * (shape.parameters - shape.linear_parameters)
        if self.kind == "least":
            return plan.weights + plan.adapter
        if self.kind == "allocated":
            return plan.total - plan.margin + self.more
        return self.more + (plan.load if self.kind == "load" else plan.total)

    @property
    def error(self) -> float:
        """As a share of the figure."""
        error = self.planned / self.published - 1
        return min(0.0, error) if self.kind == "at least" else error


def _setting(shape: Shape, quantization: str, batch: int, length: int, **changes: Any) -> dict[str, Any]:
    usual = {
        "shape": shape, "precision": "fp16", "quantization": quantization, "batch": batch, "length": length,
        "rank": 16, "targets": ALL, "optimizer": "adamw_torch", "checkpointing": True, "loss": STOCK, "packed": False,
    }  # fmt: skip
    return usual | changes


def qwen_readme() -> list[Figure]:
    """finetune.py: rank 64, every linear module, AdamW, checkpointing, flash attention, all logits.

    Its scripts: LoRA in bf16 under autocast, Q-LoRA in plain fp16 under DeepSpeed ZeRO-2 on a GPTQ model.
    """
    lengths = (256, 512, 1024, 2048, 4096, 8192)
    rows = [
        ("1.8B", "nf4", lengths, (5.8, 6.0, 6.6, 7.8, 10.2, 15.8)),
        ("1.8B", "none", lengths, (6.7, 7.4, 8.4, 11.0, 16.2, 21.8)),
        ("7B", "nf4", lengths[1:], (11.5, 12.3, 13.9, 16.9, 23.5)),
        ("7B", "none", lengths, (20.1, 20.4, 21.5, 23.8, 29.7, 36.6)),
        ("14B", "nf4", lengths, (18.7, 18.4, 18.9, 19.9, 23.0, 27.9)),
        ("14B", "none", lengths, (34.6, 35.1, 35.3, 37.4, 42.5, 55.2)),
    ]
    found = []
    for size, quantization, counts, published in rows:
        name = f"Qwen-{size} {'Q-LoRA' if quantization == 'nf4' else 'LoRA'}"
        for length, figure in zip(counts, published, strict=True):
            half = quantization == "nf4"
            setting = _setting(QWEN1[size], quantization, 1, length, rank=64, loss=HALF if half else STOCK)
            more = ZERO2 if half else 0.0
            found.append(Figure(f"{name} 1 x {length}", "peak", figure * GB, QWEN_README, setting, more=more))
    embeddings = _setting(QWEN1["1.8B"], "none", 1, 256, rank=64)
    why = "trains embedding and head"
    found.append(Figure("Qwen-1.8B LoRA 1 x 256, embeddings", "peak", 13.7 * GB, QWEN_README, embeddings, why))
    return found


def t4() -> list[Figure]:
    """Rank 16, every linear module, 8-bit AdamW, the loss in chunks; memory as CUDA's allocator reserved it."""
    eight = {"optimizer": "adamw_8bit", "loss": UNSLOTH_LOSS}
    qwen = _setting(QWEN25["7b"], "nf4", 2, 2048, **eight)
    llama = _setting(LLAMA3_8B, "nf4", 2, 2048, **eight)
    qwen3 = _setting(QWEN3["4b"], "none", 1, 2048, **eight)
    aware = "quantization-aware training"
    llama2 = _setting(Shape(4096, 32, 32, 32, 11008, 32000, False, biases=()), "nf4", 2, 2048)
    unknown = "batch and length were not published"
    blog = "huggingface/blog pull 1726 (T4)"
    return [
        Figure("Qwen2.5-7B NF4", "footprint", 5.44 * GB, "walk-through (T4)", qwen),
        Figure("Qwen2.5-7B QLoRA 2 x 2048", "load", 5.764 * GIB, UNSLOTH, qwen),
        Figure("Qwen2.5-7B QLoRA 2 x 2048", "at least", 7.893 * GIB, UNSLOTH, qwen),
        Figure("Llama-3-8B QLoRA 2 x 2048", "load", 5.594 * GIB, UNSLOTH, llama),
        Figure("Llama-3-8B QLoRA 2 x 2048", "at least", 7.535 * GIB, UNSLOTH, llama),
        Figure("Qwen3-4B LoRA + QAT 1 x 2048", "load", 8.547 * GIB, UNSLOTH, qwen3),
        Figure("Qwen3-4B LoRA + QAT 1 x 2048", "at least", 14.135 * GIB, UNSLOTH, qwen3, aware),
        *[Figure(f"Llama-2-7B QLoRA {name}", "peak", gb * GB, blog, llama2, unknown)
          for name, gb in (("OASST", 10.4), ("OASST, Unsloth", 8.4), ("Alpaca", 7.1), ("Alpaca, Unsloth", 6.4))],
    ]  # fmt: skip


def golden() -> list[Figure]:
    """The 14 B run that the shipped chain golden-14b-a10g is made after: transformers' own loss, AdamW in fp32."""
    name, source = "Qwen3-14B QLoRA 1 x 1024", "user (A10G)"
    setting = _setting(QWEN3["14b"], "nf4", 1, 1024, precision="bf16")
    left = "includes what loading left behind"
    return [
        Figure(name, "load", 12.7 * GB, source, setting, left),
        Figure(name, "least", 9.7 * GB, source, setting),
        Figure(name, "allocated", 14.1 * GB, source, setting),
    ]


def larger_cards() -> list[Figure]:
    """litgpt: rank 32 on q and v, activations kept, all logits. torchtune: every module but k, the loss in eight parts.

    Both print what torch's allocator gave to tensors. torchtune keeps all scores in bf16 and compiles its layers; in
    its rows of the 3 B model every layer's input moves to the host besides.
    """
    lit = {"rank": 32, "targets": ("q_proj", "v_proj"), "checkpointing": False}
    modules = ("q_proj", "v_proj", "o_proj", *ALL[4:])
    tune = {"rank": 8, "targets": modules, "loss": Loss(whole=2, part=12, chunk=2 * 2048 // 8)}
    three = {"rank": 64, "targets": modules, "loss": Loss(whole=2, part=12, chunk=2 * 4096 // 8)}
    hosted = "activation offloading"
    return [
        *[Figure(name, "allocated", gb * GB, LITGPT, _setting(shape, quantization, batch, 512, **lit))
          for name, gb, shape, quantization, batch in (
              ("Llama-3.2-1B LoRA 1 x 512", 4.49, LITGPT_1B, "none", 1),
              ("Llama-3.2-1B QLoRA 2 x 512", 5.53, LITGPT_1B, "nf4", 2),
              ("Llama-3.2-3B QLoRA 2 x 512", 10.30, LITGPT_3B, "nf4", 2))],
        *[Figure(name, "allocated", gib * GIB, TORCHTUNE, _setting(LLAMA3_8B, quantization, 2, 2048, **tune))
          for name, gib, quantization in (
              ("Llama-3.1-8B QLoRA 2 x 2048", 7.4, "nf4"), ("Llama-3.1-8B LoRA 2 x 2048", 16.2, "none"))],
        *[Figure(name, "allocated", gib * GIB, TORCHTUNE, _setting(LLAMA32_3B, quantization, 2, 4096, **three), hosted)
          for name, gib, quantization in (
              ("Llama-3.2-3B LoRA 2 x 4096", 8.5, "none"), ("Llama-3.2-3B QLoRA 2 x 4096", 4.6, "nf4"))],
    ]  # fmt: skip


def figures() -> list[Figure]:
    """Every figure."""
    return [*qwen_readme(), *t4(), *golden(), *larger_cards()]


def summary(rows: list[Figure]) -> dict[str, Any]:
    """Worst and median error of the rows that count, and how far the load is from published loads, in GiB."""
    counted = [row for row in rows if not row.apart]
    errors = [abs(row.error) for row in counted]
    whole = [abs(row.error) for row in counted if row.kind in ("peak", "allocated", "at least")]
    loads = [(row.planned - row.published) / GIB for row in counted if row.kind in ("load", "footprint")]
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
    """For people, and for docs/memory-plan.md: published GiB and the plan's error, one line per series of lengths."""
    series: dict[str, dict[str, str]] = {}
    rest, apart = [], dict[str, list[str]]()
    for row in rows:
        name, _, length = row.name.rpartition(" 1 x ")
        if row.apart:
            told = f"{row.name} {row.kind} {row.published / GIB:.2f} (plan {row.planned / GIB:.2f})"
            apart.setdefault(row.apart, []).append(told)
        elif row.source == QWEN_README:
            series.setdefault(name, {})[length] = f"{row.published / GIB:.2f} ({100 * row.error:+.0f}%)"
        else:
            sizes = f"{row.published / GIB:.2f} | {row.planned / GIB:.2f} | {100 * row.error:+.0f}%"
            rest.append(f"| {row.name} | {row.kind} | {sizes} | {row.source} |")
    lengths = list(dict.fromkeys(length for one in series.values() for length in one))
    print(f"{QWEN_README}: peak in GiB of 1 x\n")
    print(f"| | {' | '.join(lengths)} |\n|:--|{'--:|' * len(lengths)}")
    for name, cells in series.items():
        print(f"| {name} | {' | '.join(cells.get(length, '') for length in lengths)} |")
    print("\n| figure, GiB | of | published | plan | error | source |\n|:--|:--|--:|--:|--:|:--|")
    print("\n".join(rest))
    print("\nShown, not counted (GiB):\n")
    for why, told in apart.items():
        print(f"* {why}: {', '.join(told)}")


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
