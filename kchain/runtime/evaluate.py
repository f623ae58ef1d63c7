"""How good the adapter is on examples it was not trained on, and a fingerprint of it that others can reproduce."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass
from typing import Any

import torch

from .batches import Collator
from .encode import IGNORED, Encoded
from .failure import Stop, out_of_memory

PROBE_TOKENS = 16  # ids of an example that the probe takes
PROBE_LOGITS = 8  # logits of the last position that it records


@dataclass(frozen=True)
class Seen:
    """Mean loss (nats a token) and share of tokens predicted right, over learned tokens, and of how many examples."""

    loss: float
    accuracy: float
    examples: int


@torch.no_grad()
def evaluate(model: Any, examples: list[Encoded], collate: Collator, batch: int, deadline: float = math.inf) -> Seen:
    """What a model that spares its logits makes of examples; of one batch at least, and of all before the deadline.

    Args:
        deadline: time.monotonic() from which no further batch is begun.

    Raises:
        Stop: the loss is not finite.
    """
    model.eval()
    device = next(model.parameters()).device
    loss = right = count = 0.0
    seen = 0
    by_length = sorted(examples, key=len)  # batches of like lengths: little padding
    batches = [by_length[start : start + batch] for start in range(0, len(by_length), batch)]
    random.Random(0).shuffle(batches)  # those before a deadline are a fair sample
    for chosen in batches:
        if seen and time.monotonic() >= deadline:
            break
        seen += len(chosen)
        for part in _sums(model, chosen, collate, device):
            loss, right, count = loss + part[0], right + part[1], count + part[2]
    if not math.isfinite(loss):
        raise Stop(f"the validation loss is {loss}", "lower training.learning_rate, or look at the data of the phase")
    return Seen(loss / count, right / count, seen)


def _sums(
    model: Any, examples: list[Encoded], collate: Collator, device: torch.device
) -> list[tuple[float, float, float]]:
    """Summed loss, tokens predicted right and learned tokens of a batch; of its halves where memory runs out."""
    try:
        inputs = {name: value.to(device) for name, value in collate(examples).items()}
        judged = model(**inputs, num_items_in_batch=1)  # one: the loss is the sum over learned tokens
        return [(judged.loss.item(), judged.right.item(), (inputs["labels"] != IGNORED).sum().item())]
    except Exception as error:
        if len(examples) == 1 or not out_of_memory(error):
            raise
    half = len(examples) // 2
    return [sums for part in (examples[:half], examples[half:]) for sums in _sums(model, part, collate, device)]


@torch.no_grad()
def probe(model: Any, example: Encoded) -> dict[str, Any]:
    """The first logits after the beginning of an example: the adapter on its merged base must give them again.

    Raises:
        Stop: they are not finite.
    """
    model.eval()
    ids = example.ids[:PROBE_TOKENS].tolist()
    device = next(model.parameters()).device
    logits = model(input_ids=torch.tensor([ids], device=device)).logits[0, -1].float()
    if not logits.isfinite().all():
        raise Stop(
            "the model with the saved adapter computes numbers that are not finite",
            "lower training.learning_rate, look at the data of the phase, or train in fp32",
        )
    return {"prompt_ids": ids, "logits": logits[:PROBE_LOGITS].tolist(), "argmax": int(logits.argmax())}
