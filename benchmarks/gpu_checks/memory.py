"""Checks 3 to 6: what is in 4 bits, the paged optimizer, running out of memory, and the plan's figures."""

from __future__ import annotations

import functools
from typing import Any

from kchain.runtime import handover

from .bench import GIB, T4_MEMORY, Bench
from .findings import Findings
from .runs import ATTENTION, Run, apart, make_examples, train
from .shapes import shape, words

OPTIMIZER = "paged_adamw_8bit"
ALL = ["all-linear"]
# Steps whose memory is compared with the plan's: model, quantization, batch x length, recomputed or kept.
STEPS: dict[str, tuple[str, str, int, int, list[str], bool]] = {
    "0.5 B": ("half", "none", 4, 1024, ATTENTION, False),
    "1.5 B": ("middle", "none", 8, 2048, ALL, True),
    "7 B, NF4": ("seven", "nf4", 4, 1024, ALL, True),
    "Gemma 2": ("gemma", "none", 2, 1024, ALL, True),
}


def planned(step: str) -> Any:
    """The plan's memory of a step."""
    from kchain.phases.memory import memory

    model, quantization, batch, length, targets, recomputed = STEPS[step]
    return memory(shape(model), "fp16", quantization, batch, length, 16, targets, OPTIMIZER, recomputed)


def measured(bench: Bench, step: str) -> Run:
    """Two such steps, once."""
    model, quantization, batch, length, targets, recomputed = STEPS[step]

    def run() -> Run:
        return train(
            bench,
            f"memory-{model}",
            bench.model(model),
            make_examples(2 * batch, (length, length), words(model, not bench.cuda), learned=1.0),
            training__quantization=quantization,
            training__batch=batch,
            training__accumulation=1,
            training__checkpointing=recomputed,
            training__optimizer=OPTIMIZER,
            lora__targets=targets,
        )

    return bench.once(f"memory-{model}", run)


def four_bits(bench: Bench, found: Findings) -> None:
    """Check 3; without a card, of a tiny model."""
    if bench.cuda:
        seen, plan = measured(bench, "7 B, NF4").last(), planned("7 B, NF4")
        found.must("the load's peak is within the plan", seen["load_peak"] <= plan.total)
        found.tell(load_peak=seen["load_peak"], plan_load=plan.load, plan=plan.total)
    else:
        found.skip("memory is a CUDA card's")
        base = bench.model("seven")
        examples = make_examples(8, (8, 40), words("seven", True))
        seen = train(bench, "four-bits", base, examples, training__quantization="nf4").last()
    inside = seen["model"]
    found.tell(**inside)
    found.must("every linear module but the head is in 4 bits", inside["quantized"] > 0 and inside["plain"] == 0)
    found.must("the head is not", inside["head"] == "Linear")
    found.must("constants are in 8 bits (nested)", inside["nested"] == inside["quantized"])
    if bench.cuda:
        found.must("at most 0.53 bytes a weight", inside["bytes_a_weight"] <= 0.53)


def paged(bench: Bench, found: Findings) -> None:
    """Check 4: a checkpoint lies there after the first of two epochs of 6 steps."""
    bench.need_cuda("paged memory")
    found_by_rank = bench.together(*[functools.partial(_paged, bench, rank) for rank in (64, 16)])
    for rank, (whole, by_cpu, straight) in zip((64, 16), found_by_rank, strict=True):
        found.tell(**{f"r{rank}_paged": whole.last()["paged"], f"r{rank}_state_tensors": whole.last()["state_tensors"]})
        found.must(f"r{rank}: some state is paged", whole.last()["paged"] > 0)
        for way, run in (("by way of the CPU", by_cpu), ("straight onto the card", straight)):
            if run.trained is None:
                found.must(f"r{rank}, {way}: it goes on ({run.stopped or run.said[-300:]})", False)
                continue
            far = apart(whole.losses, run.losses, after=6)
            found.tell(**{f"r{rank} {way}": far})
            found.must(f"r{rank}, {way}: losses as if uninterrupted to 1e-4", far <= 1e-4)


def _paged(bench: Bench, rank: int) -> tuple[Run, Run, Run]:
    examples = make_examples(24, (64, 256), words("wide", not bench.cuda), seed=rank)
    changes: dict[str, Any] = {
        "training__epochs": 2,
        "training__optimizer": OPTIMIZER,
        "lora__r": rank,
        "lora__targets": ALL,
    }
    base = bench.model("wide")
    whole = train(bench, f"paged-{rank}", base, examples, **changes)
    whole.must_train()
    changes["checkpoint"] = whole.folder / handover.CHECKPOINTS / "checkpoint-6"
    by_cpu, straight = bench.together(
        lambda: train(bench, f"paged-{rank}-cpu", base, examples, **changes),
        lambda: train(bench, f"paged-{rank}-card", base, examples, {"optimizer_to": "cuda:0"}, **changes),
    )
    return whole, by_cpu, straight


def runs_out(bench: Bench, found: Findings) -> None:
    """Check 5, alone on the card: 8 examples at a time do not fit, 4 do."""
    bench.need_cuda("a card's memory that runs out")
    base, length, count = bench.model("half"), 768, 20
    examples = make_examples(8 * count, (length // 2, length), words("half", False), seed=9)
    examples[0] = make_examples(1, (length, length), words("half", False))[0]
    changes: dict[str, Any] = {"training__accumulation": 1, "training__checkpointing": False, "training__batch": 8}
    four = {**changes, "training__batch": 4, "training__accumulation": 2}
    smaller = train(bench, "four-at-a-time", base, examples, **four)
    need = smaller.last()["reserved"]
    eight = int(1.4 * need)
    cases = {
        "at the trial": {"memory": min(T4_MEMORY, eight)},
        "at step 15": {"ballast": {"step": 14, "batch": 8, "leave": need // 4}},
    }
    found.tell(four_at_a_time=need)
    for when, wishes in cases.items():
        run = train(bench, f"runs-out-{when.replace(' ', '-')}", base, examples, wishes, **changes)
        run.must_train()
        steps, _, batch, recovered = run.trained or [0, 0, 0, []]
        free = [seen["free_at_start"] for seen in run.seen]
        found.tell(**{when: {"recovered": recovered, "free_at_start": free}})
        found.must(
            f"{when}: recovered with 4 examples at a time", batch == 4 and len(recovered) == 1 and steps == count
        )
        expected_step = 0 if "trial" in when else 14
        found.must(f"{when}: it ran out there", bool(recovered) and recovered[0]["step"] == expected_step)
        found.must(f"{when}: losses are those of 4 at a time", apart(smaller.losses, run.losses) <= 1e-4)
        found.must(f"{when}: the memory is free at the restart", len(free) == 2 and free[1] >= free[0] - GIB // 10)


def plan(bench: Bench, found: Findings) -> None:
    """Check 6."""
    bench.need_cuda("the memory of a card")
    runs = bench.together(*[functools.partial(measured, bench, step) for step in STEPS])
    for step, run in zip(STEPS, runs, strict=True):
        if run.trained is None or not run.seen:
            found.must(f"{step}: it trains ({run.stopped or run.said[-300:]})", False)
            continue
        seen, expected = run.seen[-1], planned(step)
        ratio = expected.total / seen["peak"]
        found.tell(**{step: {"allocated": seen["peak"], "reserved": seen["reserved"], "plan": expected.total}})
        found.tell(**{f"{step}: plan/allocated": round(ratio, 3)})
        found.must(f"{step}: the plan is 0.95 to 1.3 of what was allocated", 0.95 <= ratio <= 1.3)
        if recovered := (run.trained or [0, 0, 0, []])[3]:
            found.must(f"{step}: the planned batch fits ({recovered[0]['reason'][:80]})", False)
