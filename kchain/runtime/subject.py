"""The model a phase began from and the model it ended with, in one: the same weights, with one adapter or another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftModel

from . import model, tokenizer
from .train import prepare

AFTER, BEFORE = "default", "before"


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
        self.model = PeftModel.from_pretrained(bare, saved)
        if continued is not None:
            self.model.load_adapter(continued, BEFORE)
        self.model.eval()

    @contextmanager
    def before(self) -> Iterator[None]:
        """Inside, the model is the one that the phase began from."""
        if BEFORE not in self.model.peft_config:
            with self.model.disable_adapter():
                yield
            return
        self.model.set_adapter(BEFORE)
        try:
            yield
        finally:
            self.model.set_adapter(AFTER)
