"""Examples of different lengths become one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from .encode import IGNORED, Encoded


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
