"""How long an optimizer step takes, estimated from the model's arithmetic before anything runs.

A batch takes what its multiplications take at the speed that training reaches on the machine, and no less than its
kernels take to launch: small models on short examples wait for the interpreter, not for the GPU.
"""

from __future__ import annotations

import math

from kchain.phases.accelerators import Accelerator
from kchain.phases.memory import HALF_BYTES, NF4_BYTES, Setting

# A layer's kernels of a forward, a second forward and a backward pass with LoRA. Source: Qwen's README, LoRA on an A100
# at 256 tokens, where 24, 32 and 40 layers take 5.2, 4.7 and 5.0 ms each whatever the width (benchmarks/plan_time.py).
LAYER_SECONDS = 0.005
# Passes over the layers with and without recomputation, in forward passes: a backward pass counts as two.
PASSES = {True: 4, False: 3}
# Each GPU beyond the first: not measured on two GPUs; the gradients that are exchanged are those of the adapter alone.
SHARED = 0.9
# A GPU has far fewer units for fp32 than for half precision: 8 times on a T4, 16 times on an A100 (data sheets).
FP32_SLOWER = 8


def step_seconds(setting: Setting, machine: Accelerator, tokens: float) -> float:
    """Seconds of an optimizer step.

    Args:
        tokens: of an example, on average.
    """
    processes = machine.processes(setting.accumulation)
    batches = setting.accumulation / processes
    return batches * batch_seconds(setting, machine, tokens) / (SHARED if processes > 1 else 1)


def batch_seconds(setting: Setting, machine: Accelerator, tokens: float) -> float:
    """Seconds of one batch, forward and backward."""
    shape, row = setting.shape, setting.batch * tokens
    speed = machine.flops / (FP32_SLOWER if machine.is_gpu and setting.precision == "fp32" else 1)
    seconds = row * token_flops(setting, row) / speed
    if not machine.is_gpu:
        return seconds
    if setting.quantization == "nf4":
        # Each pass writes every weight in full before it is used; forward, recomputed and backward are one pass each.
        moved = shape.linear_parameters * (NF4_BYTES + HALF_BYTES)
        seconds += (PASSES[setting.checkpointing] - 1) * moved / machine.bandwidth
    return max(seconds, shape.layers * LAYER_SECONDS * PASSES[setting.checkpointing] / PASSES[True])


def token_flops(setting: Setting, row: float) -> float:
    """Multiplications and additions for one token of a row of so many.

    2 for each weight and pass; the base and the head are frozen, so their backward pass is one product, not two. In a
    row of several examples fused attention works on all pairs and masks them; of one example on half of them.
    """
    shape = setting.shape
    again = 2 if setting.checkpointing else 1
    linear = 2 * shape.linear_parameters * (again + 1)
    adapter = 2 * setting.trainable * (again + 2)
    pairs = row if setting.batch > 1 else row / 2
    attention = 4 * shape.layers * shape.queries * pairs * (again + 2)
    return linear + adapter + attention + 4 * shape.vocab * shape.hidden


def usable_seconds(session: int) -> float:
    """What training gets of a session: the runtime stops in time to judge and save (kchain/runtime/limits.py)."""
    return session - max(min(0.1 * session, 900.0), min(60.0, session / 3))


def sessions(hours: float, session: int) -> int:
    """Sessions of so many seconds that hours of training need."""
    return max(1, math.ceil(hours * 3600 / usable_seconds(session)))
