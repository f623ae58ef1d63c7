"""The models behind a subject: its base, and the chain merged as it is exported; and a proof that it is that chain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from kchain.export.merged import write_merged
from kchain.export.place import workshop
from kchain.export.subject import Subject
from kchain.inference.speaker import Speaker

# Share of the largest logit by which the probe may differ: another device, and weights rounded to fp16 once.
PROBE_TOLERANCE = 0.05


@dataclass(frozen=True)
class Probe:
    """What the session recorded of its trained model against what this one says: the largest difference of a logit."""

    difference: float
    agrees: bool


@contextmanager
def merged_model(subject: Subject) -> Iterator[Path]:
    """The folder of the chain merged as it is exported; it is gone afterwards.

    Raises:
        InputError: the disk lacks the room for it, or an adapter does not fit.
    """
    size = sum(file.stat().st_size for file in subject.base.glob("*.safetensors"))
    with workshop(subject.chain.root / ".kchain" / "merged", size, force=False) as shop:
        write_merged(subject, shop / "model")
        yield shop / "model"


def load_chain(subject: Subject, precision: str) -> Speaker:
    """The chain: every adapter merged into the base, root first, with the last adapter's tokenizer.

    Raises:
        InputError: see `merged_model` and `Speaker`.
    """
    with merged_model(subject) as folder:
        return Speaker(folder, folder, subject.pad, real_tokens(subject), precision)


def real_tokens(subject: Subject) -> list[str]:
    """The tokens whose rows the chain trained: they count wherever they stand in a prompt."""
    tokens = (token for link in subject.links for token in subject.chain.phase(link.phase).tokens.all)
    return list(dict.fromkeys(tokens))


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
