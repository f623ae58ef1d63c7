"""The plan against a real training step: `python benchmarks/plan_measured.py [--json]`.

A step of a random Qwen2 on the CPU, in fp32, with the notebook's own loss, batches and adapter. Measured is what
torch's allocator gives out beyond the loaded model at the highest point, with AdamW's moments, which a first short step
makes: the plan's optimizer, activations and logits. Nothing depends on the clock or on what else the machine does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parents[1]
RANK = 16
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL = (*ATTENTION, "gate_proj", "up_proj", "down_proj")
MIB = 2**20


@dataclass(frozen=True)
class Case:
    """One step: widths, layers, vocabulary, examples in a row, tokens of each, modules, recomputation, token rows."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    batch: int
    length: int
    targets: tuple[str, ...]
    checkpointing: bool
    rows: int = 0

    @property
    def name(self) -> str:
        """In words, for the table."""
        modules = "every module" if self.targets == ALL else "attention"
        kept = "recomputed" if self.checkpointing else "kept"
        size = f"{self.layers} x {self.hidden} wide, {self.vocab:,} words"
        rows = f", {self.rows} tokens' rows" if self.rows else ""
        return f"{size}, {self.batch} x {self.length}, {modules}, {kept}{rows}"


# Widths of Qwen2.5-0.5B with its vocabulary; and a middling one whose vocabulary is small, so that the body counts.
HALF_BILLION = (896, 4, 14, 2, 4864, 151936)
MIDDLE = (512, 8, 8, 4, 1536, 2000)
CASES = [
    Case(*widths, batch, length, targets, checkpointing)
    for widths in (HALF_BILLION, MIDDLE)
    for batch, length in ((1, 768), (3, 256))
    for targets in (ATTENTION, ALL)
    for checkpointing in (True, False)
] + [Case(*HALF_BILLION, 1, 768, ATTENTION, checkpointing=True, rows=2)]


def planned(case: Case) -> int:
    """What the plan says of the same, in bytes."""
    from kchain.phases.memory import memory
    from kchain.phases.models import Shape

    shape = Shape(case.hidden, case.layers, case.heads, case.kv_heads, case.intermediate, case.vocab, tied=True)
    found = memory(
        shape,
        "fp32",
        "none",
        case.batch,
        case.length,
        RANK,
        case.targets,
        "adamw_torch",
        case.checkpointing,
        rows=case.rows,
    )
    return found.optimizer + found.activations + found.logits


def measured(case: Case) -> int:
    """What a step took at its highest point, in bytes."""
    import torch

    model, collate = _model(case)
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])

    def step(length: int) -> None:
        model(**collate([_example(case, length) for _ in range(case.batch)])).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step(length=8)
    moments: int = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    return moments + highest(lambda: step(case.length))


def highest(run: Callable[[], None]) -> int:
    """The most bytes of torch's that lived at a time in `run`, beyond those before it."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    events = seen.profiler.kineto_results.events() if seen.profiler else []
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    living = most = 0
    for _, change in changes:
        living += change
        most = max(most, living)
    return most


def _model(case: Case) -> tuple[Any, Any]:
    """The model as the notebook trains it, and its collator."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from kchain.runtime import model as models
    from kchain.runtime import train
    from kchain.runtime.tokenizer import TokenRow

    torch.manual_seed(0)
    config = Qwen2Config(
        hidden_size=case.hidden, num_hidden_layers=case.layers, num_attention_heads=case.heads,
        num_key_value_heads=case.kv_heads, intermediate_size=case.intermediate, vocab_size=case.vocab,
        tie_word_embeddings=True,
    )  # fmt: skip
    base: Any = Qwen2ForCausalLM(config)
    base.config.use_cache = False
    collate = train.prepare(base, 0)
    lora = {"r": RANK, "alpha": 32, "dropout": 0.05, "bias": "none", "targets": list(case.targets)}
    rows = [TokenRow(str(token), token, (token,)) for token in range(case.rows)]
    model = models.add_lora(base, lora, seed=0, rows=rows)
    if case.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train(), collate


def _example(case: Case, length: int) -> Any:
    import torch

    from kchain.runtime.encode import Encoded

    numbers = torch.randint(0, case.vocab, (length,), dtype=torch.int32).numpy()
    return Encoded(numbers, numbers.copy())


def main() -> None:
    """Print each case, and with --json the errors as one object on the last line."""
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description="The memory plan against real training steps on the CPU.")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on the last line")
    as_json = parser.parse_args().json
    rows = []
    print("| step | measured | plan | error |\n|:--|--:|--:|--:|")
    for case in CASES:
        with contextlib.redirect_stdout(sys.stderr):  # the notebook's own events
            found, plan = measured(case), planned(case)
        rows.append((found, plan))
        error = 100 * (plan / found - 1)
        print(f"| {case.name} | {found / MIB:.0f} MiB | {plan / MIB:.0f} MiB | {error:+.1f} % |", flush=True)
    errors = [abs(plan / found - 1) for found, plan in rows]
    worst, middle = max(errors), median(errors)
    print(f"\n{len(rows)} steps: worst error {100 * worst:.1f} %, median {100 * middle:.1f} %")
    if as_json:
        print(json.dumps({"steps": len(rows), "worst": round(worst, 4), "median": round(middle, 4)}))


if __name__ == "__main__":
    main()
