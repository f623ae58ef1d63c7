"""What a model allows, found out by trying it on the bare model itself; no list of names would stay true."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Shares of the largest logit: what an example may change when its neighbours in the row do (kernels that add in another
# order stay far below), and when it stands alone, which is another shape that half precision rounds otherwise.
CONTAMINATION = 1e-3
HALF = 5e-2
ROUNDING = {torch.float32: 1e-3}


@contextmanager
def without(head: Any) -> Iterator[None]:
    """Lets a head hand on what it gets, so that a model's logits are its hidden states."""
    own = vars(head).get("forward")
    head.forward = lambda states: states
    try:
        yield
    finally:
        del head.forward
        if own is not None:
            head.forward = own


@torch.no_grad()
def head_is_last(model: Any) -> tuple[bool, int]:
    """Tries it: are a model's logits what its head makes of the hidden states, to the last bit? And the vocabulary."""
    head = model.get_output_embeddings()
    _be_still(model)
    ids = torch.arange(8, device=model.device)[None]
    logits = model(input_ids=ids, use_cache=False).logits
    if head is None:
        return False, logits.shape[-1]
    with without(head):
        states = model(input_ids=ids, use_cache=False).logits
    fits = states.shape[-1] == head.weight.shape[-1]  # not so for a head in 4 bits
    return bool(fits) and torch.equal(head(states), logits), logits.shape[-1]


@torch.no_grad()
def can_pack(model: Any) -> bool:
    """Tries it: does an example in a packed row see nothing of its neighbours, and count from its own beginning?"""
    if "position_ids" not in inspect.signature(type(model).forward).parameters:
        return False
    _be_still(model)
    ids = torch.arange(16, device=model.device)
    first, other, second = ids[:5], ids[5:10], ids[10:]

    def logits(*examples: torch.Tensor) -> torch.Tensor:
        positions = torch.cat([torch.arange(len(example), device=model.device) for example in examples])
        answer = model(input_ids=torch.cat(examples)[None], position_ids=positions[None], use_cache=False)
        row: torch.Tensor = answer.logits[0]
        return row[-len(second) :].float()

    beside, elsewhere, alone = logits(first, second), logits(other, second), logits(second)
    by_neighbours, by_company = (beside - elsewhere).abs().max(), (beside - alone).abs().max()
    largest = alone.abs().max()
    return bool(by_neighbours <= CONTAMINATION * largest and by_company <= ROUNDING.get(model.dtype, HALF) * largest)


def _be_still(model: Any) -> None:
    """No dropout; 4-bit layers stay in training: for inference bitsandbytes lays them out anew on a CPU, for good."""
    model.eval()
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.training = True
