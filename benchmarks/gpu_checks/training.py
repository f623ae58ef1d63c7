"""Checks 1, 2 and 10: training in half precision, what goes wrong in it, and going on from a checkpoint."""

from __future__ import annotations

import functools
from typing import Any

from kchain.runtime import handover

from .bench import Bench
from .findings import Findings
from .runs import Run, apart, make_examples, train
from .shapes import BAD_WORD, words

STEPS = 40
TOLERANCES = {"fp16": 2e-3, "bf16": 1e-2}  # of a loss, beside fp32


def lengths(bench: Bench) -> tuple[int, int]:
    """Of the examples of most checks."""
    return (64, 512) if bench.cuda else (8, 40)


def of_half_a_billion(bench: Bench, precision: str, quantization: str = "none") -> Run:
    """40 steps of a 0.5 B; a run that was made already is not made again."""

    def run() -> Run:
        examples = make_examples(4 * STEPS, lengths(bench), words("half", not bench.cuda))
        name = f"half-{precision}-{quantization}"
        return train(
            bench,
            name,
            bench.model("half"),
            examples,
            training__precision=precision,
            training__quantization=quantization,
        )

    return bench.once(f"half-{precision}-{quantization}", run)


def half_precision(bench: Bench, found: Findings) -> None:
    """Check 1."""
    kinds = [("fp32", "none"), ("bf16", "none"), (bench.precision, "nf4")]
    if bench.cuda:
        kinds.append(("fp16", "none"))
    else:
        found.skip("fp16 trains on a CUDA card only")
    calls = [functools.partial(of_half_a_billion, bench, *kind) for kind in kinds]
    runs = dict(zip(kinds, bench.together(*calls), strict=True))
    plain = {precision: run for (precision, quantization), run in runs.items() if quantization == "none"}
    for (precision, quantization), run in runs.items():
        name = precision if quantization == "none" else quantization
        seen, batches = run.last(), run.event("batches")
        found.must(f"{name}: packed and spared", bool(batches["packed"] and batches["logits_spared"]))
        found.must(f"{name}: what is trained is fp32", seen["model"]["trained"] == ["torch.float32"])
        found.must(f"{name}: {STEPS} steps", max(run.losses) == STEPS)
        found.must(f"{name}: a scaler exactly in fp16", (seen["scaler"] is not None) == (precision == "fp16"))
        found.tell(**{f"{name}_loss": [round(run.losses[1], 5), round(run.losses[STEPS], 5)]})
        if precision == "fp16":
            found.must(f"{name}: at most 5 steps skipped", (run.trained or [0, 99])[1] <= 5)
            found.tell(**{f"{name}_skipped": (run.trained or [0, 0])[1], f"{name}_scale": seen["scaler"]})
    for name, tolerance in TOLERANCES.items():
        if name in plain:
            far = apart(plain["fp32"].losses, plain[name].losses)
            found.must(f"losses of {name} are those of fp32 to {tolerance}", far <= tolerance)
            found.tell(**{f"{name}_from_fp32": far})


def overflows(bench: Bench, found: Findings) -> None:
    """Check 2."""
    examples = make_examples(120, (16, 64), words("small", not bench.cuda))
    one: dict[str, Any] = {"training__batch": 1, "training__accumulation": 4}

    def a_bad_example() -> Run:
        bad = make_examples(8, (16, 64), words("small", not bench.cuda), seed=6)
        bad[5].ids[len(bad[5]) // 2] = BAD_WORD
        return train(bench, "no-number", bench.model("no-number"), bad, **one)

    def too_large() -> Run:
        return train(bench, "too-large", bench.model("too-large"), examples[:16])

    def overflow() -> Run:
        # Nothing is added to the model at first, and every gradient is multiplied by this.
        return train(bench, "overflow", bench.model("small"), examples, lora__alpha=1e13)

    if not bench.cuda:
        found.skip("overflow is of fp16, which trains on a CUDA card only")
        named = a_bad_example()
    else:
        named, large, skipping = bench.together(a_bad_example, too_large, overflow)
        reason = " ".join(skipping.stopped or [])
        steps = len(skipping.losses)
        found.tell(overflow=skipping.stopped, overflow_steps=steps, too_large=large.stopped)
        found.must("20 skipped steps end the run", reason.startswith("20 steps") and steps in (19, 20))
        found.must("its text speaks of fp16", "fp16" in reason)
        found.must("activations beyond 65,504: the text speaks of fp16", "fp16" in " ".join(large.stopped or []))
    found.tell(no_number=named.stopped)
    found.must("the example that is no number is named", "example 5" in (named.stopped or [""])[0])


def goes_on(bench: Bench, found: Findings) -> None:
    """Check 10: a checkpoint lies there after the first of two epochs."""
    examples = make_examples(40, lengths(bench), words("half", not bench.cuda), seed=8)
    base = bench.model("half")
    changes: dict[str, Any] = {"training__epochs": 2, "training__scheduler": "cosine", "lora__dropout": 0.1}
    whole = train(bench, "whole", base, examples, **changes)
    seen = whole.last()
    saved = whole.folder / handover.CHECKPOINTS / "checkpoint-10"
    resumed = train(bench, "resumed", base, examples, checkpoint=saved, **changes)
    again = resumed.last()
    far = apart(whole.losses, resumed.losses, after=10)
    found.tell(from_uninterrupted=far, scaler_at_10=seen["scales"].get("10"), restored=again["scales"].get("10"))
    found.must("losses are those of 20 steps to 1e-4", far <= 1e-4)
    if bench.cuda:
        found.must(
            "the scaler is restored", seen["scales"]["10"] == again["scales"]["10"] and again["scales"]["10"][1] > 0
        )
    else:
        found.skip("a scaler is only on a CUDA card")
