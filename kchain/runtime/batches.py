"""Which examples make a step, which of them a process takes at a time, and how they become one batch of tensors.

An epoch is a shuffle of all examples by the seed alone, and a step is the next `effective` of them. Neither depends on
how many examples a GPU holds at a time nor on how many GPUs there are, so none of that changes what is learned.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from .encode import IGNORED, Encoded


@dataclass(frozen=True)
class Share:
    """How a step is shared out: `processes` of them take `batch` examples at a time, this one is number `rank`."""

    effective: int
    batch: int
    processes: int = 1
    rank: int = 0

    @property
    def accumulation(self) -> int:
        """Batches of one process in a whole step."""
        return self.effective // (self.batch * self.processes)


class Order:
    """The batch sampler of one process.

    The examples of a step are dealt out so that all batches, and so all processes, have nearly the same number of
    tokens: processes wait for the slowest of them at the end of a step. Padded batches are of like lengths instead.

    Args:
        lengths: tokens of each example.
        packed: whether a batch is one row without padding.
    """

    def __init__(self, lengths: Sequence[int], seed: int, share: Share, packed: bool) -> None:
        self.lengths = lengths
        self.seed = seed
        self.share = share
        self.packed = packed
        self.epoch = 0  # which one is iterated over next; set by whoever counts the steps
        self.steps = math.ceil(len(lengths) / share.effective)  # of an epoch
        self._shuffled: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        """Batches of this process in an epoch."""
        last = len(self.lengths) - (self.steps - 1) * self.share.effective
        return (self.steps - 1) * self.share.accumulation + self._rounds(last)

    def __iter__(self) -> Iterator[list[int]]:
        """Indices of each batch of this process; one past the end stands for an example with nothing to learn."""
        first = self.epoch * self.steps
        for step in range(first, first + self.steps):
            yield from self.batches(step)[self.share.rank :: self.share.processes]

    def examples(self, step: int) -> list[int]:
        """Indices of the examples of a step, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.steps)
        if self._shuffled[0] != epoch:
            shuffled = list(range(len(self.lengths)))
            random.Random(f"{self.seed}/{epoch}").shuffle(shuffled)
            self._shuffled = (epoch, shuffled)
        begin = place * self.share.effective
        return self._shuffled[1][begin : begin + self.share.effective]

    def batches(self, step: int) -> list[list[int]]:
        """The batches of a step over all processes; process r takes r, r + processes and so on."""
        chosen = self.examples(step)
        rounds, processes = self._rounds(len(chosen)), self.share.processes
        if self.packed:
            dealt = deal([self.lengths[index] for index in chosen], rounds * processes, self.share.batch)
        else:
            dealt = self._of_like_lengths(chosen, rounds * processes)
        batches = [[chosen[place] for place in places] for places in dealt]
        ranks = deal([self.weight(batch) for batch in batches], processes, rounds)
        return [batches[number] or [len(self.lengths)] for turn in zip(*ranks, strict=True) for number in turn]

    def heaviest(self, steps: int) -> list[int]:
        """The batch that needs the most memory in so many steps."""
        return max((batch for step in range(steps) for batch in self.batches(step)), key=self.weight)

    def weight(self, batch: Sequence[int]) -> int:
        """Tokens of a batch as the model sees it."""
        lengths = [self.lengths[index] for index in batch if index < len(self.lengths)]
        return sum(lengths) if self.packed else len(lengths) * max(lengths, default=0)

    def _rounds(self, examples: int) -> int:
        """How many times each process takes a batch, so that they take so many examples."""
        return math.ceil(examples / (self.share.batch * self.share.processes))

    def _of_like_lengths(self, chosen: Sequence[int], count: int) -> list[list[int]]:
        """Places of the examples in `chosen`, in batches from the longest examples to the shortest."""
        size = self.share.batch
        places = sorted(range(len(chosen)), key=lambda place: -self.lengths[chosen[place]])
        return [places[number * size : (number + 1) * size] for number in range(count)]


def deal(weights: Sequence[int], hands: int, room: int) -> list[list[int]]:
    """Places of the weights, dealt to hands with room for so many: each, heaviest first, to the lightest hand."""
    dealt: list[list[int]] = [[] for _ in range(hands)]
    lightest = [(0, number) for number in range(hands)]
    for place in sorted(range(len(weights)), key=lambda place: -weights[place]):
        weight, number = heapq.heappop(lightest)
        dealt[number].append(place)
        if len(dealt[number]) < room:
            heapq.heappush(lightest, (weight + weights[place], number))
    return dealt


def smaller(share: Share) -> Share | None:
    """About half the batch, for the same examples in a step; None when a batch is one example already."""
    fitting = (batch for batch in range(share.batch // 2, 0, -1) if share.effective % (batch * share.processes) == 0)
    batch = next(fitting, None)
    return None if batch is None else Share(share.effective, batch, share.processes, share.rank)


@dataclass(frozen=True)
class Collator:
    """Makes one row of a batch (`packed`), or pads to its longest example; what is learned is the same.

    A packed row tells its examples apart by position ids that begin again, and must not come with an attention mask: an
    all-ones mask makes transformers overlook the borders. Padding is told by the attention mask and by length, never by
    its id.

    With `keep`, only the positions that predict a label somewhere in the batch reach the model's head. transformers 5.0
    and later take these as they are: `logits_to_keep` (positions) and `shift_labels` (batch, positions); `labels` must
    be there too, to ask for a loss.
    """

    pad_id: int
    keep: bool
    packed: bool = False

    def __call__(self, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Tensors of shape (batch, longest), or (1, sum of the lengths) of a packed row; int64."""
        inputs = self._row(batch) if self.packed else self._padded(batch)
        if not self.keep:
            return inputs
        nexts = torch.nn.functional.pad(inputs.pop("labels")[:, 1:], (0, 1), value=IGNORED)
        kept = (nexts != IGNORED).any(dim=0).nonzero().squeeze(1)
        targets = nexts[:, kept]
        return {**inputs, "labels": targets, "shift_labels": targets, "logits_to_keep": kept}

    def _row(self, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        return {
            "input_ids": torch.cat([torch.from_numpy(example.ids).long() for example in batch])[None],
            "position_ids": torch.cat([torch.arange(len(example)) for example in batch])[None],
            "labels": torch.cat([_labels(example) for example in batch])[None],
        }

    def _padded(self, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        shape = (len(batch), max(len(example) for example in batch))
        ids = torch.full(shape, self.pad_id)
        mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORED)
        for row, example in enumerate(batch):
            ids[row, : len(example)] = torch.from_numpy(example.ids)
            mask[row, : len(example)] = 1
            labels[row, : len(example)] = _labels(example)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _labels(example: Encoded) -> torch.Tensor:
    """Labels of an example; the first token has nothing before it, least of all the example before it in the row."""
    labels = torch.tensor(example.labels, dtype=torch.long)
    labels[0] = IGNORED
    return labels
