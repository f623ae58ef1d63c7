"""How good the adapter is on examples it was not trained on, and a fingerprint of it that others can reproduce."""

from __future__ import annotations

import math
from typing import Any

import torch

from .collate import Collator
from .encode import IGNORED, Encoded
from .failure import Stop

PROBE_TOKENS = 16  # ids of an example that the probe takes
PROBE_LOGITS = 8  # logits of the last position that it records


@torch.no_grad()
def evaluate(model: Any, examples: list[Encoded], collate: Collator, batch: int) -> tuple[float, float]:
    """(mean loss, share of tokens predicted right) of a model that spares its logits, both over learned tokens only.

    Raises:
        Stop: the loss is not finite.
    """
    model.eval()
    device = next(model.parameters()).device
    loss = right = count = 0.0
    by_length = sorted(examples, key=len)  # batches of like lengths: little padding
    for start in range(0, len(by_length), batch):
        inputs = {name: value.to(device) for name, value in collate(by_length[start : start + batch]).items()}
        judged = model(**inputs, num_items_in_batch=1)  # one: the loss is the sum over learned tokens
        loss += judged.loss.item()
        right += judged.right.item()
        count += (inputs["labels"] != IGNORED).sum().item()
    if not math.isfinite(loss):
        raise Stop(f"the validation loss is {loss}", "lower training.learning_rate, or look at the data of the phase")
    return loss / count, right / count


@torch.no_grad()
def probe(model: Any, example: Encoded) -> dict[str, Any]:
    """The first logits after the beginning of an example: the adapter on its merged base must give them again."""
    model.eval()
    ids = example.ids[:PROBE_TOKENS].tolist()
    device = next(model.parameters()).device
    logits = model(input_ids=torch.tensor([ids], device=device)).logits[0, -1].float()
    return {"prompt_ids": ids, "logits": logits[:PROBE_LOGITS].tolist(), "argmax": int(logits.argmax())}
