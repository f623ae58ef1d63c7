"""The loss without the logits: the head is computed where a label is, some rows at a time, and nothing of it is kept.

For a vocabulary of 150,000 the logits of 2 x 2048 tokens are 2.5 GB in fp32, and an ordinary training step holds two or
three such copies. Here a step holds one chunk of them. Where the head is frozen, as it is beside LoRA, the gradient
towards the hidden states is a by-product of the forward pass, so the chunk is computed once; where the head is trained
itself, each chunk is computed again in the backward pass.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.utils.generic import ModelOutput

from .encode import IGNORED
from .failure import Stop
from .trial import head_is_last, without

# Logits of one chunk: 128 MiB in fp32, 220 rows of a vocabulary of 151,936. Larger chunks gain nothing (measured).
CHUNK = 2**25
# Half precision ends at 6e-8 and loses digits below 6e-5; probabilities are multiplied by this before they become half.
SCALE = 256.0


@dataclass
class Judged(ModelOutput):  # type: ignore[misc,unused-ignore]
    """The answer to labels after `spare_logits`: the loss and, without gradients, how many tokens are right."""

    loss: torch.Tensor | None = None
    right: torch.Tensor | None = None


def spare_logits(model: Any) -> bool:
    """Makes a causal language model answer labels with a `Judged`, and without ever holding all of the logits.

    Call it on the bare model; PEFT, data parallelism, autocast and the Trainer then see an ordinary forward. The loss
    is the sum over learned tokens divided by `num_items_in_batch`, or their mean where the Trainer passes none. A model
    whose logits are not what its head makes of its hidden states (Gemma 2 caps them) keeps them, at a cost in memory.

    Returns:
        Whether the logits are spared.
    """
    stock = model.forward
    spared, vocabulary = head_is_last(model)
    size = max(1, CHUNK // vocabulary)

    @functools.wraps(stock)
    def forward(
        *args: Any, labels: Any = None, shift_labels: Any = None, num_items_in_batch: Any = None, **kwargs: Any
    ) -> Any:
        if labels is None:
            return stock(*args, **kwargs)
        if kwargs.get("position_ids") is not None and kwargs.get("attention_mask") is not None:
            raise Stop("a packed batch has an attention mask: its examples would see each other", "this is a bug")
        kwargs["use_cache"] = False  # with a cache, transformers does not look for packed examples
        targets = functional.pad(labels[:, 1:], (0, 1), value=IGNORED) if shift_labels is None else shift_labels
        learned = targets != IGNORED
        head = model.get_output_embeddings() if spared else torch.nn.Identity()
        with without(head):
            states = stock(*args, **kwargs).logits
        total, right = _judge(head, states[learned], targets[learned], size)
        count = learned.sum() if num_items_in_batch is None else num_items_in_batch
        return Judged(loss=total / torch.as_tensor(count, device=total.device), right=right)

    model.forward = forward
    model.accepts_loss_kwargs = True  # asks the Trainer for num_items_in_batch, whatever the model's class says
    return spared


def _judge(
    head: Any, states: torch.Tensor, targets: torch.Tensor, size: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Sum of the losses of states (n, width) for targets (n), in fp32, and how many are right if no gradient is due."""
    frozen = type(head) is torch.nn.Linear and not any(weight.requires_grad for weight in head.parameters())
    if torch.is_grad_enabled() and frozen:
        total: torch.Tensor = _Fused.apply(  # type: ignore[no-untyped-call,unused-ignore]
            states, targets, head.weight, head.bias, size
        )
        return total, None
    chunks = [(states[part], targets[part]) for part in _parts(len(states), size)]
    if torch.is_grad_enabled():
        losses = [checkpoint(_loss, head, *chunk, use_reentrant=False) for chunk in chunks]
        return torch.stack(losses).sum(), None
    judged = [torch.stack(_loss_and_right(head, *chunk)) for chunk in chunks]
    loss, right = torch.stack(judged).double().sum(dim=0)
    return loss.float(), right.long()


def _parts(rows: int, size: int) -> list[slice]:
    """Where the chunks are; one empty chunk where there are no rows."""
    return [slice(begin, begin + size) for begin in range(0, max(1, rows), size)]


def _loss(head: Any, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(head(states).float(), targets, reduction="sum")


def _loss_and_right(head: Any, states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(states).float()
    right = (logits.argmax(dim=-1) == targets).sum()
    return functional.cross_entropy(logits, targets, reduction="sum"), right.float()


class _Fused(torch.autograd.Function):
    """Cross entropy of a frozen linear head; d loss / d rows, softmax @ weight - weight[target], is kept by forward."""

    @staticmethod
    def forward(  # type: ignore[override,unused-ignore]
        ctx: Any, rows: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, size: int
    ) -> torch.Tensor:
        kind = rows.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        total = rows.new_zeros((), dtype=torch.float32)
        gradient = torch.empty_like(rows, dtype=torch.float32)
        with torch.autocast(kind, enabled=False):
            for part in _parts(len(rows), size):
                loss, gradient[part] = _chunk(rows[part].to(dtype), targets[part], weight, bias)
                total += loss
        ctx.save_for_backward(gradient)
        ctx.dtype = rows.dtype
        return total

    @staticmethod
    def backward(ctx: Any, by_loss: torch.Tensor) -> Any:  # type: ignore[override,unused-ignore]
        (gradient,) = ctx.saved_tensors
        return (gradient * by_loss).to(ctx.dtype), None, None, None, None


def _chunk(
    rows: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss and gradient towards the rows, both fp32; one fp32 copy of the chunk's logits, changed in place."""
    logits = functional.linear(rows, weight, bias).float()
    top = logits.amax(dim=-1, keepdim=True)
    hit = logits.gather(1, targets[:, None])
    share = logits.sub_(top).exp_()
    total = share.sum(dim=-1, keepdim=True)
    loss = (total.log() + top - hit).sum()
    if weight.dtype != torch.float32:
        share.mul_(SCALE / total)
        total = torch.full_like(total, SCALE)
    return loss, (share.to(weight.dtype) @ weight).float().div_(total).sub_(weight[targets])
