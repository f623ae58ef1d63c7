"""What the loss of a step holds, by the way it is computed."""

from __future__ import annotations

from dataclasses import dataclass

from kchain.phases.models import FP32_BYTES, Shape

# Scores of one chunk of the notebook's loss: CHUNK of kchain/runtime/loss.py (a test compares).
CHUNK = 2**25


@dataclass(frozen=True)
class Loss:
    """Bytes that a loss holds at its highest point.

    Attributes:
        whole: for each position and word of the vocabulary, of every position of the batch.
        part: the same, of the positions of one chunk.
        chunk: positions of a chunk.
        state: for each position and each number of its hidden state.
    """

    whole: int = 0
    part: int = 0
    chunk: int = 0
    state: int = 0

    def bytes(self, shape: Shape, tokens: int) -> int:
        """Of a batch of so many tokens, each with a label."""
        scores = shape.vocab * (tokens * self.whole + min(tokens, self.chunk) * self.part)
        return scores + tokens * shape.hidden * self.state


# transformers' own: log_softmax keeps its fp32 result, its backward pass has two gradients of that size beside it.
# Source: torch's cross_entropy. 2.6 copies were measured above what the body took.
STOCK = Loss(whole=3 * FP32_BYTES)


def chunk(shape: Shape) -> int:
    """Positions whose scores the notebook's loss holds at a time."""
    return max(1, CHUNK // shape.vocab)


def notebook(shape: Shape, wide: int) -> Loss:
    """The notebook's: in chunks, with a fused gradient (kchain/runtime/loss.py).

    A chunk's scores in fp32 and, in half precision, once more for the product with the head; of all positions the
    hidden states and their gradient in fp32. A model with capped scores keeps all of them: in the cap, behind it, and
    those that have a label. `wide`: bytes of a number of the model.
    """
    part = chunk(shape)
    half = wide if wide < FP32_BYTES else 0
    if shape.softcap:
        return Loss(whole=3 * wide, part=2 * FP32_BYTES + half, chunk=part)
    return Loss(part=FP32_BYTES + half, chunk=part, state=FP32_BYTES + wide)
