"""The plan's seconds of a step against published ones: `python benchmarks/plan_time.py [--json]`.

Qwen's README gives seconds of an optimizer step (batch 1 x 8) by length on an A100, LoRA of rank 64 on every linear
module in bf16 with checkpointing. Nothing is run. The share of the data sheet's peak that training reaches and the
seconds of a layer's kernels (kchain/phases/accelerators.py, speed.py) are taken from this table; so the errors say how
well two numbers describe eighteen, not how well they foretell another machine.
"""

from __future__ import annotations

import argparse
import json
from statistics import median

from kchain.phases.machines import ACCELERATORS
from kchain.phases.memory import Setting
from kchain.phases.models import Shape
from kchain.phases.time import step_seconds

ALL = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
# config.json of Qwen's first models; QwenLM/Qwen README, profiling: LoRA.
ROWS = {
    "Qwen-1.8B": (Shape(2048, 24, 16, 16, 5504, 151936, False), (1.0, 1.0, 1.1, 1.7, 3.3, 6.8)),
    "Qwen-7B": (Shape(4096, 32, 32, 32, 11008, 151936, False), (1.2, 1.5, 2.8, 5.2, 10.1, 21.3)),
    "Qwen-14B": (Shape(5120, 40, 40, 40, 13696, 152064, False), (1.6, 2.4, 4.4, 8.4, 17.0, 36.0)),
}


def estimate(shape: Shape, length: int) -> float:
    """The plan's seconds of the same step."""
    setting = Setting(
        shape=shape, precision="bf16", quantization="none", batch=1, accumulation=8, length=length, rank=64,
        targets=ALL, optimizer="adamw_torch", checkpointing=True,
    )  # fmt: skip
    return step_seconds(setting, ACCELERATORS["NvidiaTeslaA100"], length)


def main() -> None:
    """Print every row, the summary, and with --json the summary as the last line."""
    parser = argparse.ArgumentParser(description="The plan's seconds of a step against published ones.")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on the last line")
    as_json = parser.parse_args().json
    errors = []
    print("| step on an A100 | published | plan | error |\n|:--|--:|--:|--:|")
    for name, (shape, published) in ROWS.items():
        for length, seconds in zip(LENGTHS, published, strict=True):
            found = estimate(shape, length)
            errors.append(found / seconds - 1)
            print(f"| {name} LoRA 8 x {length} | {seconds:.1f} s | {found:.1f} s | {100 * errors[-1]:+.0f} % |")
    worst, middle = max(map(abs, errors)), median(map(abs, errors))
    print(f"\n{len(errors)} steps: worst error {100 * worst:.0f} %, median {100 * middle:.0f} %")
    if as_json:
        print(json.dumps({"steps": len(errors), "worst": round(worst, 4), "median": round(middle, 4)}))


if __name__ == "__main__":
    main()
