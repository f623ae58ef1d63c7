"""The models behind a subject: its base, and the chain merged as it is exported; and a proof that it is that chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from kchain.export.merged import merged_model
from kchain.export.subject import Subject
from kchain.inference.speaker import Speaker

# Share of the largest logit by which the probe may differ: another device, and weights rounded to fp16 once.
PROBE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Probe:
    """What the session recorded of its trained model against what this one says: the largest difference of a logit."""

    difference: float
    agrees: bool


def load_chain(subject: Subject, precision: str) -> Speaker:
    """The chain: every adapter merged into the base, root first, with the last adapter's tokenizer.

    Raises:
        InputError: see `merged_model` and `Speaker`.
    """
    with merged_model(subject) as folder:
        return Speaker(folder, folder, subject.pad, subject.tokens, precision)


def compare_probe(speaker: Speaker, result: Mapping[str, Any]) -> Probe | None:
    """Whether the loaded model says what the trained one said in its session; None where that recorded nothing."""
    told = result.get("probe")
    if not told:
        return None
    with torch.inference_mode():
        ids = torch.tensor([told["prompt_ids"]], device=speaker.model.device)
        logits = speaker.model(input_ids=ids).logits[0, -1].float().cpu()
    recorded = torch.tensor(told["logits"])
    difference = float((logits[: len(recorded)] - recorded).abs().max())
    return Probe(difference, difference <= PROBE_TOLERANCE * max(1.0, float(recorded.abs().max())))
