"""The loss without the logits: the head is computed where a label is, some rows at a time, and nothing of it is kept.

For a vocabulary of 150,000 the logits of 2 x 2048 tokens are 2.5 GB in fp32, and an ordinary training step holds two or
three such copies. Here a step holds one chunk of them. Where the head is frozen, as it is beside LoRA, the gradient
towards the hidden states is a by-product of the forward pass, so the chunk is computed once; so is that of a few rows
of the head, where tokens are trained. Where the head is trained as a whole, each chunk is computed again in the
backward pass. What a model allows is found out by trying it on the bare model itself; no list of names would stay true.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.utils.generic import ModelOutput

from .encode import IGNORED
from .failure import Stop

# Logits of one chunk: 128 MiB in fp32, 220 rows of a vocabulary of 151,936. Larger chunks gain nothing (measured).
CHUNK = 2**25
# Half precision ends at 6e-8 and loses digits below 6e-5; probabilities are multiplied by this before they become half.
SCALE = 256.0
# Shares of the largest logit: what an example may change when its neighbours in the row do (kernels that add in another
# order stay far below), and when it stands alone, which is another shape that half precision rounds otherwise.
CONTAMINATION = 1e-3
HALF = 5e-2
ROUNDING = {torch.float32: 1e-3}


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
    parts = _frozen(head)
    if torch.is_grad_enabled() and parts is not None:
        total: torch.Tensor = _Fused.apply(  # type: ignore[no-untyped-call,unused-ignore]
            states, targets, size, *parts
        )
        return total, None
    chunks = [(states[part], targets[part]) for part in _parts(len(states), size)]
    if torch.is_grad_enabled():
        losses = [checkpoint(_loss, head, *chunk, use_reentrant=False) for chunk in chunks]
        return torch.stack(losses).sum(), None
    judged = [torch.stack(_loss_and_right(head, *chunk)) for chunk in chunks]
    loss, right = torch.stack(judged).double().sum(dim=0)
    return loss.float(), right.long()


def _frozen(head: Any) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None] | None:
    """(weight, bias, ids of trained rows, these rows) of a linear head that is frozen but for them; None: it is not."""
    rows = getattr(head, "token_adapter", None)  # peft's wrapper of a module with trained rows
    linear, ids, own = head, None, None
    if rows is not None:
        linear, names = rows.base_layer, rows.active_adapters
        if rows.merged or rows.disable_adapters or len(names) != 1:
            return None
        own = rows.trainable_tokens_delta[names[0]]
        ids = torch.tensor(rows.token_indices[names[0]], device=own.device)
    if type(linear) is not torch.nn.Linear or any(weight.requires_grad for weight in linear.parameters()):
        return None
    return linear.weight, None if rows is not None else linear.bias, ids, own


def _parts(rows: int, size: int) -> list[slice]:
    """Where the chunks are; one empty chunk where there are no rows."""
    return [slice(begin, begin + size) for begin in range(0, max(1, rows), size)]


def _loss(head: Any, states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(head(states).float(), targets, reduction="sum")


def _loss_and_right(head: Any, states: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both from one copy of the logits, in place: 1.6 times as fast on a CPU as cross_entropy and argmax."""
    logits = head(states).float()
    top, likeliest = logits.max(dim=-1, keepdim=True)
    hit = logits.gather(1, targets[:, None])
    total = logits.sub_(top).exp_().sum(dim=-1, keepdim=True)
    return (total.log() + top - hit).sum(), (likeliest[:, 0] == targets).sum().float()


class _Fused(torch.autograd.Function):
    """Cross entropy of a frozen linear head, some rows of which may be others, and trained; forward keeps gradients.

    d loss / d states is softmax @ weight - weight[target]; d loss / d row is (softmax - [target is it]) @ states.
    """

    @staticmethod
    def forward(  # type: ignore[override,unused-ignore]
        ctx: Any,
        states: torch.Tensor,
        targets: torch.Tensor,
        size: int,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        ids: torch.Tensor | None,
        own: torch.Tensor | None,
    ) -> torch.Tensor:
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        # Rows as peft has them: first in the type of the weight.
        trained = None if ids is None or own is None else (ids, own.to(weight.dtype).to(dtype))
        weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
        total = states.new_zeros((), dtype=torch.float32)
        gradient = torch.empty_like(states, dtype=torch.float32)
        by_rows = None if own is None else torch.zeros_like(own)
        with torch.autocast(kind, enabled=False):
            for part in _parts(len(states), size):
                loss, gradient[part], by_row = _chunk(states[part].to(dtype), targets[part], weight, bias, trained)
                total += loss
                if by_rows is not None and by_row is not None:
                    by_rows += by_row
        ctx.save_for_backward(gradient, by_rows)
        ctx.dtype = states.dtype
        return total

    @staticmethod
    def backward(ctx: Any, by_loss: torch.Tensor) -> Any:  # type: ignore[override,unused-ignore]
        gradient, by_rows = ctx.saved_tensors
        rows = None if by_rows is None else by_rows * by_loss
        return (gradient * by_loss).to(ctx.dtype), None, None, None, None, None, rows


def _chunk(
    states: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    trained: tuple[torch.Tensor, torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Loss, gradient towards the states and towards trained rows, all fp32; one fp32 copy of the logits, in place."""
    logits = functional.linear(states, weight, bias).float()
    if trained is not None:
        logits[:, trained[0]] = functional.linear(states, trained[1]).float()
    top = logits.amax(dim=-1, keepdim=True)
    hit = logits.gather(1, targets[:, None])
    share = logits.sub_(top).exp_()
    total = share.sum(dim=-1, keepdim=True)
    loss = (total.log() + top - hit).sum()
    correct, by_rows = weight[targets].float(), None
    if trained is not None:
        ids, own = trained
        is_it = (targets[:, None] == ids).float()
        by_rows = (share[:, ids] / total - is_it).T @ states.float()
        correct = torch.where(is_it.any(dim=1, keepdim=True), is_it @ own.float(), correct)
    if weight.dtype != torch.float32:
        share.mul_(SCALE / total)
        total = torch.full_like(total, SCALE)
    gradient = torch.zeros_like(correct)
    if trained is not None:
        gradient += share[:, ids].to(weight.dtype) @ own
        share[:, ids] = 0.0
    gradient += share.to(weight.dtype) @ weight
    return loss, gradient.div_(total).sub_(correct), by_rows


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
