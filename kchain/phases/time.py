"""How many examples and steps a phase has at most, and how long a step takes, before anything runs.

Examples are counted in the project's files alone. A step's time is estimated from the model's arithmetic: a batch
takes what its multiplications take at the speed that training reaches on the machine, and no less than its kernels take
to launch: small models on short examples wait for the interpreter, not for the GPU.
"""

from __future__ import annotations

import math

from kchain.phases.chain import Chain, Phase
from kchain.phases.data import Data, Source
from kchain.phases.machines import Accelerator
from kchain.phases.memory import HALF_BYTES, NF4_BYTES, Setting
from kchain.runtime.contract import reserve

# A layer's kernels of a forward, a second forward and a backward pass with LoRA. Source: Qwen's README, LoRA on an A100
# at 256 tokens, where 24, 32 and 40 layers take 5.2, 4.7 and 5.0 ms each whatever the width (benchmarks/plan_time.py).
LAYER_SECONDS = 0.005
# Passes over the layers with and without recomputation, in forward passes: a backward pass counts as two.
PASSES = {True: 4, False: 3}
# Each GPU beyond the first: not measured on two GPUs; the gradients that are exchanged are those of the adapter alone.
SHARED = 0.9
# A GPU has far fewer units for fp32 than for half precision: 8 times on a T4, 16 times on an A100 (data sheets).
FP32_SLOWER = 8


def most_examples(chain: Chain, phase: Phase) -> tuple[int, str, int]:
    """The most examples, what says so, and the most that there can be if every uncounted source gives plenty.

    An optional source without a limit is not counted beside sources that can be: the phase is meant to do without it.
    """
    sources = phase.data.sources
    uncounted = [source for source in sources if _most(chain, source) is None]
    known = sum(_most(chain, source) or 0 for source in sources)
    cap = phase.data.max_examples
    if known > cap:
        return cap, "max_examples", cap
    if not uncounted:
        return known, "all that the sources may give", known
    names = ", ".join(source.name for source in uncounted)
    if known and all(source.optional for source in uncounted):
        return known, f"all that the others may give if {names} (optional, no limit) is skipped, else {cap:,}", cap
    return cap, f"max_examples, as the size of {names} is unknown", cap


def _most(chain: Chain, source: Source) -> int | None:
    """The most examples of one source; only a project file can be counted beforehand."""
    rows = chain.files[source.place].count("\n") if source.kind.travels else None
    if rows is None or source.limit is None:
        return source.limit if rows is None else rows
    return min(rows, source.limit)


def validation_examples(data: Data, examples: int) -> int:
    """Examples of the validation set, on average: each one's own content decides."""
    share = min(data.max_validation, int(examples * data.validation))
    return 1 if data.validation and not share and examples > 1 else share


def most_steps(phase: Phase, examples: int) -> tuple[int, str]:
    """The most optimizer steps that so many examples give, and what says so."""
    training = phase.training
    together = training.batch * training.accumulation
    steps = training.epochs * math.ceil(examples / together)
    if training.max_steps is not None and training.max_steps < steps:
        return training.max_steps, "max_steps"
    return steps, f"{training.epochs} x {examples:,} examples / {together} a step"


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
    """What training gets of a session: the runtime stops in time to judge and save (kchain/runtime/contract.py)."""
    return session - reserve(session)


def sessions(hours: float, session: int) -> int:
    """Sessions of so many seconds that hours of training need."""
    return max(1, math.ceil(hours * 3600 / usable_seconds(session)))
