"""GPU memory of one LoRA training step, term by term. Pure arithmetic on a model's shape.

A step has two high points: the loss, when the logits are there, and the backward pass of a layer, when the logits are
gone again. `Memory` describes the higher one. Batches are taken as full: every example as long as `length`.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass

from kchain.errors import InputError
from kchain.phases.models import FP32_BYTES, Shape
from kchain.units import GIB, gib

HALF_BYTES = 2
# bitsandbytes: 4 bits, an 8-bit constant for 64 weights, an fp32 constant for 256 of those; 0.5 + 1/64 + 4/16384.
NF4_BYTES = 0.5159
# bitsandbytes' AdamW8bit: two moments of one byte, each with an fp32 constant for 256 values.
ADAM_8BIT_BYTES = 2 * (1 + 4 / 256)
ADAM_BYTES = 2 * FP32_BYTES
# tanh and the cast of the softmax in half precision, the softmax in fp32; in fp32 there is no cast and tanh has 4.
SCORE_BYTES = 8
# A quarter GiB for what loading leaves in the allocator's pool and cuBLAS takes: published loads are 0.1 to 0.9 GiB
# above weights and adapter. A quarter for the CUDA context, which counts against what a card calls usable.
POOL = GIB // 4
CONTEXT = GIB // 4
# Blocks of the caching allocator that no tensor fits into; a share of what comes and goes in a step.
FRAGMENTED = 0.05
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


def chunk(shape: Shape) -> int:
    """Positions whose scores the notebook's loss holds at a time."""
    return max(1, CHUNK // shape.vocab)


def notebook_loss(shape: Shape, wide: int) -> Loss:
    """The notebook's loss: in chunks, with a fused gradient (kchain/runtime/loss.py).

    A chunk's scores in fp32 and, in half precision, once more for the product with the head; of all positions the
    hidden states and their gradient in fp32. A model with capped scores keeps all of them: in the cap, behind it, and
    those that have a label. `wide`: bytes of a number of the model.
    """
    part = chunk(shape)
    half = wide if wide < FP32_BYTES else 0
    if shape.softcap:
        return Loss(whole=3 * wide, part=2 * FP32_BYTES + half, chunk=part)
    return Loss(part=FP32_BYTES + half, chunk=part, state=FP32_BYTES + wide)


@dataclass(frozen=True)
class Memory:
    """Bytes of GPU memory at the highest point of a step.

    Attributes:
        weights: the frozen base model.
        adapter: LoRA weights, in fp32.
        optimizer: their gradients and moments.
        activations: what the forward pass keeps, and what a layer's backward pass takes beyond `logits`.
        logits: what the loss holds: scores over the vocabulary, and gradients.
        margin: CUDA's own share, cuBLAS, and what the allocator cannot use.
    """

    weights: int
    adapter: int
    optimizer: int
    activations: int
    logits: int
    margin: int

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.optimizer + self.activations + self.logits + self.margin

    @property
    def load(self) -> int:
        """What the allocator holds before the first step: comparable with published loads."""
        return self.weights + self.adapter + POOL

    def as_dict(self) -> dict[str, int]:
        """The terms and their sum, for `--json`."""
        return {**asdict(self), "total": self.total}


@dataclass(frozen=True)
class Setting:
    """Everything that decides the memory of a step; the words are those of `[training]` and `[lora]`."""

    shape: Shape
    precision: str
    quantization: str
    batch: int
    accumulation: int
    length: int
    rank: int
    targets: tuple[str, ...]
    optimizer: str
    checkpointing: bool
    rows: int = 0

    @property
    def memory(self) -> Memory:
        """What a step of the notebook takes.

        Raises:
            InputError: the model has no module of a target's name.
        """
        return memory(
            self.shape, self.precision, self.quantization, self.batch, self.length, self.rank, self.targets,
            self.optimizer, self.checkpointing, rows=self.rows,
        )  # fmt: skip

    @property
    def trainable(self) -> int:
        """Weights of the adapter."""
        return (self.shape.adapter_bytes(self.rank, self.targets, self.rows) or 0) // FP32_BYTES


def memory(
    shape: Shape,
    precision: str,
    quantization: str,
    batch: int,
    length: int,
    rank: int,
    targets: Collection[str],
    optimizer: str,
    checkpointing: bool,
    loss: Loss | None = None,
    packed: bool = True,
    rows: int = 0,
) -> Memory:
    """The memory of a step.

    Args:
        precision: of base and arithmetic: "fp16", "bf16" or "fp32".
        quantization: of the frozen base: "none" or "nf4".
        batch, length: examples on the GPU at a time, and tokens of each.
        optimizer: "paged_adamw_8bit", "adamw_8bit" or "adamw_torch".
        checkpointing: whether activations are computed again in the backward pass.
        loss: how the loss is computed; None: as the notebook does it.
        packed: whether a batch is one row, as in the notebook, or padded.
        rows: tokens whose rows are trained. PEFT puts them into a copy of the embedding at the beginning of a step, and
            takes their gradient out of one as large at its end, when nothing else is kept.

    Raises:
        InputError: the model has no module of a target's name.
    """
    modules = shape.chosen(targets)
    adapter = shape.adapter_bytes(rank, targets, rows)
    if modules is None or adapter is None:
        unknown = ", ".join(sorted(set(targets) - set(shape.linear)))
        raise InputError(f"this model has no module {unknown}", f"targets are among {', '.join(shape.linear)}")
    wide = FP32_BYTES if precision == "fp32" else HALF_BYTES
    tokens = batch * length
    logits = (loss or notebook_loss(shape, wide)).bytes(shape, tokens)
    kept = layer_bytes(shape, wide, batch, length, rank, modules, packed)
    working = working_bytes(shape, wide, tokens, tokens if packed else length, quantization, modules)
    # Autocast's half-precision copies of the adapter live as long as the forward pass.
    copies = adapter // 2 if wide == HALF_BYTES else 0
    if checkpointing:
        activations = shape.layers * tokens * shape.hidden * wide + copies + max(0, kept + working - logits)
    else:
        activations = shape.layers * kept + copies + max(0, working - logits)
    if rows:
        activations = max(activations, shape.vocab * shape.hidden * wide - logits)
    state = optimizer_bytes(adapter // FP32_BYTES, optimizer)
    margin = POOL + CONTEXT + math.ceil(FRAGMENTED * (state + activations + logits))
    return Memory(weight_bytes(shape, wide, quantization), adapter, state, activations, logits, margin)


def weight_bytes(shape: Shape, wide: int, quantization: str) -> int:
    """Linear weights x 0.5159 (nf4) or x `wide`; embedding, head, biases and norms x `wide` in any case.

    Source: bitsandbytes quantizes nn.Linear but the head; published loads, see docs/memory-plan.md.
    """
    linear = shape.linear_parameters + shape.vision_linear
    stored = math.ceil(linear * NF4_BYTES) if quantization == "nf4" else linear * wide
    return stored + (shape.parameters - linear) * wide


def optimizer_bytes(trainable: int, optimizer: str) -> int:
    """Trainable weights x (4 for the fp32 gradient + 8 for AdamW's moments in fp32, or 2.03 in 8 bits).

    Source: torch.optim.AdamW; bitsandbytes, blocks of 256. Paged moments count too: they return for every step.
    """
    moments = ADAM_BYTES if optimizer == "adamw_torch" else ADAM_8BIT_BYTES
    return math.ceil(trainable * (FP32_BYTES + moments))


def layer_bytes(
    shape: Shape, wide: int, batch: int, length: int, rank: int, modules: Collection[str], packed: bool = True
) -> int:
    """What one layer keeps for its backward pass; the base is frozen, so its linear modules keep nothing.

    A token: 4 x hidden for each norm (fp32); wide x 4 x queries in attention (queries, repeated keys and values,
    result), and its row of the mask where a batch has several examples: as long as the packed row, or as an example
    with its padding; where scores are capped no fused attention works: all scores are kept, the result and the mask are
    not; wide x 3 x intermediate (gate, its activation, up);
    for each target its dropped-out input (wide), what dropout keeps of it and the rank (wide).
    Source: what autograd saves of transformers' layers under peft, counted (tests/plan/test_plan_memory.py).
    """
    norms = FP32_BYTES * (shape.norms * shape.hidden + (shape.queries + shape.kv if shape.qk_norm else 0))
    row = batch * length if packed else length
    if shape.softcap:
        attention = wide * 3 * shape.queries + SCORE_BYTES * shape.heads * row
    else:
        attention = wide * 4 * shape.queries + (wide * row if batch > 1 else 0)
    lora = sum((wide + dropout_bytes(wide)) * shape.linear[module][0] + wide * rank for module in modules)
    return batch * length * (norms + attention + wide * 3 * shape.intermediate + lora)


def working_bytes(shape: Shape, wide: int, tokens: int, row: int, quantization: str, modules: Collection[str]) -> int:
    """What a layer's backward pass takes beside what was kept: gradients of feed-forward width, those of capped scores,
    and with nf4 the largest weight in full.

    Of feed-forward width are three gradients behind the activation. Where `down_proj` has an adapter, what that kept of
    its input is gone by then; before it is, there are two, through the base and through the adapter.
    """
    gradients = 3 * wide
    if "down_proj" in modules:
        gradients = max(2 * wide, gradients - wide - dropout_bytes(wide))
    scores = SCORE_BYTES * shape.heads * row if shape.softcap else 0
    whole = max(inputs * outputs for inputs, outputs in shape.linear.values()) * wide if quantization == "nf4" else 0
    return tokens * (gradients * shape.intermediate + scores) + whole


def dropout_bytes(wide: int) -> int:
    """What dropout keeps of a value: a byte; in fp32, which is for CPUs, a number, as torch does it there."""
    return FP32_BYTES if wide == FP32_BYTES else 1


def memory_words(needed: Memory, available: int) -> str:
    """A memory plan in one line: `5.2 GiB at most, of 14.6 GiB: weights 0.9, …`, terms under 0.05 GiB left out."""
    terms = {name: f"{count / GIB:.1f}" for name, count in needed.as_dict().items() if name != "total"}
    parts = ", ".join(f"{name} {count}" for name, count in terms.items() if count != "0.0")
    of = f", of {gib(available)}" if available else ""
    return f"{gib(needed.total)} at most{of}: {parts}"
