"""The model a phase began from and the model it ended with, in one: the same weights, with one adapter or another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights

from . import model, tokenizer
from .train import prepare


class Subject:
    """A merged base with the adapter that was saved, loaded as anybody would load it.

    Args:
        base: folder of the merged base model.
        parameters: of the notebook.
        saved: folder of the saved adapter.
        continued: folder of the adapter whose training was gone on with; None: the phase began without one.
    """

    def __init__(self, base: Path, parameters: dict[str, Any], saved: Path, continued: Path | None) -> None:
        training, pad = parameters["training"], parameters["pad"]
        bare = model.load_base(base, training["precision"], training["quantization"])
        tokenizer.force_on_model(bare, pad)
        self.collate = prepare(bare, pad["id"])
        self.model = PeftModel.from_pretrained(bare, saved).eval()
        self._saved, self._continued = saved, continued

    @contextmanager
    def before(self) -> Iterator[None]:
        """Inside, the model is the one that the phase began from."""
        if self._continued is None:
            with self.model.disable_adapter():
                yield
            return
        self._load(self._continued)
        try:
            yield
        finally:
            self._load(self._saved)

    def _load(self, folder: Path) -> None:
        """Other weights into the adapter that is there: peft 0.18 puts no second one on tied rows of tokens."""
        set_peft_model_state_dict(self.model, load_peft_weights(str(folder), device="cpu"))
