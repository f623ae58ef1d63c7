"""Training with two processes, as on both GPUs of a T4 machine, against one: the same losses, and the speed-up.

The processes of a session train the same examples, once alone and once together; gloo joins them on a CPU, where each
has one thread, NCCL where there are two GPUs. The time is that of the steps, not of starting. The losses must agree to
1e-5, or the comparison says so and fails. `python benchmarks/two_processes.py [--json]`
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

BATCH, ACCUMULATION, EPOCHS = 2, 8, 2
# Lengths as in shared measurements of instruction data: median 119 tokens, mean 179.
MEDIAN, SPREAD, LONGEST, SHORTEST = 119, 0.9, 1024, 8
VOCABULARY, WIDTH, LAYERS = 2_000, 256, 4
TOLERANCE = 1e-5
PAD = {"token": "<end>", "id": 2}


def main() -> int:
    """Trains with one and with two processes, prints a table and, with --json, one object on the last line."""
    options = _options()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        base, examples = make_model(Path(folder) / "base"), make_examples(options.examples)
        sides = {str(count): run_side(Path(folder) / str(count), base, examples, count) for count in (1, 2)}
    one, two = sides["1"], sides["2"]
    apart = max(abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True))
    found = {
        "speed_up_ratio": one["seconds"] / two["seconds"],
        "token_share_ratio": token_share(examples),
        "loss_difference": apart,
        "same_losses": apart <= TOLERANCE,
        "backend": "nccl" if _gpus() else "gloo",
        "examples": len(examples),
        "sides": sides,
    }
    print_table(found)
    if options.json:
        print(json.dumps(found))
    return 0 if found["same_losses"] else 1


def run_side(folder: Path, base: Path, examples: Sequence[Any], processes: int) -> dict[str, Any]:
    """Trains with so many processes.

    Returns:
        Loss of every step, seconds of all steps but the first, tokens a second in these.
    """
    from kchain.runtime import handover, launch

    folder.mkdir()
    handover.write_examples(folder, examples)
    job = handover.Job(
        parameters=parameters(),
        base=str(base),
        batch=BATCH,
        processes=processes,
        checkpoint=None,
        deadline=time.monotonic() + 86_400,
        step_seconds=3_600.0,
        logs=str(folder / "logs"),
        continued=None,
        rows=[],
    )
    with contextlib.redirect_stdout(io.StringIO()) as out:
        launch.train(folder, job, str)
    lines = [line.removeprefix("kchain: ") for line in out.getvalue().splitlines() if line.startswith("kchain: ")]
    steps = [event for event in map(json.loads, lines) if event["event"] == "step"]
    seconds = steps[-1]["seconds"] - steps[0]["seconds"]
    tokens = EPOCHS * sum(len(example) for example in examples) * (len(steps) - 1) / len(steps)
    return {"losses": [step["loss"] for step in steps], "seconds": seconds, "tokens_per_second": tokens / seconds}


def token_share(examples: Sequence[Any]) -> float:
    """Tokens of the slower of two processes over half of all, mean over the steps: what waiting costs at most."""
    from kchain.runtime.batches import Order, Share

    order = Order([len(example) for example in examples], 0, Share(BATCH * ACCUMULATION, BATCH, 2), True)
    slower = total = 0
    for step in range(EPOCHS * order.steps):
        batches = order.batches(step)
        halves = [sum(order.weight(batch) for batch in batches[rank::2]) for rank in (0, 1)]
        slower, total = slower + max(halves), total + sum(halves)
    return 2 * slower / total


def parameters() -> dict[str, Any]:
    """What a notebook is told, as far as training reads it."""
    gpus = _gpus()
    return {
        "seed": 0,
        "pad": PAD,
        "lora": {
            "r": 16,
            "alpha": 32,
            "dropout": 0.0,
            "bias": "none",
            "targets": ["q_proj", "k_proj", "v_proj", "o_proj"],
        },
        "training": {
            "epochs": EPOCHS,
            "max_steps": None,
            "batch": BATCH,
            "accumulation": ACCUMULATION,
            "learning_rate": 2e-4,
            "scheduler": "linear",
            "warmup": 0.0,
            "weight_decay": 0.0,
            "optimizer": "adamw_torch",
            "precision": "fp32",
            "quantization": "none",
            "checkpointing": True,
            "logging_steps": 1,
        },
        "accelerator": {"gpus": gpus},
    }


def make_model(folder: Path) -> Path:
    """A random model whose body is most of the work."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=8,
        num_key_value_heads=4,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def make_examples(count: int) -> list[Any]:
    """Random ids of lognormal length, all of them learned."""
    import numpy as np

    from kchain.runtime.encode import Encoded

    chance, made = np.random.default_rng(0), []
    for drawn in chance.lognormal(np.log(MEDIAN), SPREAD, count):
        ids = chance.integers(3, VOCABULARY, int(min(LONGEST, max(SHORTEST, drawn)))).astype(np.int32)
        made.append(Encoded(ids, ids.copy()))
    return made


def print_table(found: dict[str, Any]) -> None:
    """For people: both sides, and the ratios."""
    print(f"{found['examples']} examples, {BATCH} x {ACCUMULATION} a step, {EPOCHS} epochs; {found['backend']}")
    print(f"{'processes':12}{'tokens/s':>10}{'seconds':>10}{'first loss':>12}{'last loss':>12}")
    for name, side in found["sides"].items():
        first, last = side["losses"][0], side["losses"][-1]
        print(f"{name:12}{side['tokens_per_second']:>10.0f}{side['seconds']:>10.1f}{first:>12.6f}{last:>12.6f}")
    print(
        f"speed-up {found['speed_up_ratio']:.2f}x; the slower process has {found['token_share_ratio']:.3f} of half the "
        f"tokens; losses differ by {found['loss_difference']:.1e}" + ("" if found["same_losses"] else ": TOO MUCH")
    )


def _gpus() -> int:
    """2 where there are two GPUs, else 0: one GPU cannot be shared by NCCL."""
    import torch

    return 2 if torch.cuda.device_count() >= 2 else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--json", action="store_true", help="one object with the ratios, on the last line")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
