"""Examples of different lengths become one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .encode import IGNORED, Encoded


@dataclass(frozen=True)
class Collator:
    """Pads to the longest example; padding is told by the attention mask and by length, never by its id.

    With `keep`, only the positions that predict a label somewhere in the batch go through the model's head, which for a
    vocabulary of 150,000 is most of the memory and much of the time. transformers 5.0 and later take these as they are:
    `logits_to_keep` (positions) and `shift_labels` (batch, positions); `labels` must be there too, to ask for a loss.
    """

    pad_id: int
    keep: bool

    def __call__(self, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Tensors of shape (batch, longest), int64."""
        shape = (len(batch), max(len(example) for example in batch))
        ids = torch.full(shape, self.pad_id)
        mask = torch.zeros(shape, dtype=torch.long)
        labels = torch.full(shape, IGNORED)
        for row, example in enumerate(batch):
            ids[row, : len(example)] = torch.from_numpy(example.ids)
            mask[row, : len(example)] = 1
            labels[row, : len(example)] = torch.from_numpy(example.labels)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if not self.keep:
            return {**inputs, "labels": labels}
        nexts = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
        kept = (nexts != IGNORED).any(dim=0).nonzero().squeeze(1)
        targets = nexts[:, kept]
        return {**inputs, "labels": targets, "shift_labels": targets, "logits_to_keep": kept}
