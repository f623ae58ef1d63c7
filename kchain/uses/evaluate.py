"""An evaluation from start to end: both sides asked, and everything that was found in one report."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from kchain.uses.merged import merged_model
from kchain.uses.questions import HeldOut
from kchain.uses.report import choose
from kchain.uses.sampling import Sampling
from kchain.uses.sides import Side, ask, compare
from kchain.uses.speaker import Probe, Speaker, compare_probe
from kchain.uses.subject import TrainedPhase

SIDES = ("base", "chain")
Told = Callable[[str, int], None]


def evaluate(
    subject: TrainedPhase, questions: HeldOut, check: str, max_tokens: int, precision: str, tell: Told
) -> dict[str, Any]:
    """Ask the base model, then the chain; both with the chain's tokenizer and prompts, greedily, one by one.

    Args:
        tell: called with the side's name and its number of answers so far.

    Returns:
        The report, as JSON: sides, verdict, every answer.

    Raises:
        InputError: see `merged.write_merged` and `Speaker`.
    """
    judge, settings = choose(check), Sampling(max_tokens=max_tokens)
    sides: dict[str, Side] = {}
    probes: list[Probe | None] = []
    with merged_model(subject) as merged:

        def load(name: str) -> Speaker:
            folder = subject.base if name == "base" else merged
            speaker = Speaker(folder, merged, subject.pad, subject.tokens, precision)
            probes.append(compare_probe(speaker, subject.last.result))
            return speaker

        for name in SIDES:
            sides[name] = ask(partial(load, name), questions.asked, judge, settings, partial(tell, name))
    verdict = compare(sides["base"], sides["chain"], subject.seed)
    return {
        **_about(subject, questions, check, max_tokens, precision),
        "probe": None if probes[-1] is None else asdict(probes[-1]),
        "sides": {name: side.figures() for name, side in sides.items()},
        "verdict": verdict.as_dict(),
        "answers": [
            {
                "question": question.turns[-1]["content"],
                "expected": question.expected,
                **{name: {**asdict(side.answers[place]), "passed": side.passed[place]} for name, side in sides.items()},
            }
            for place, question in enumerate(questions.asked)
        ],
    }


def _about(subject: TrainedPhase, questions: HeldOut, check: str, max_tokens: int, precision: str) -> dict[str, Any]:
    cpu = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    return {
        "chain": subject.chain,
        "phase": subject.phase,
        "base_model": subject.base_model,
        "lineage": subject.lineage,
        "data": {
            "file": questions.path.name,
            "sha256": questions.sha256,
            "held": questions.held,
            "left_out": questions.left_out,
            "asked": len(questions.asked),
        },
        "check": check,
        "max_tokens": max_tokens,
        "precision": precision,
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu,
    }
