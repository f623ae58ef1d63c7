"""What is exported, asked or evaluated: a phase's adapters and the base model they belong to, as plain values.

`export.read` makes one of the journal of a project, `export.use` one of what is mounted into a session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kchain.errors import InputError
from kchain.runtime.adapters import Adapter
from kchain.runtime.failure import Stop


@dataclass(frozen=True)
class Part:
    """One verified adapter.

    Attributes:
        version: of the kernel that trained it, where that is known.
        adopted: it was trained elsewhere.
        result: the kchain-result.json beside it; {} where it has none.
        tokens: those whose rows it trained.
        sources: what its phase file says of its data: tables with name, dataset, huggingface and file.
    """

    adapter: Adapter
    version: int | None
    adopted: bool
    result: Mapping[str, Any]
    tokens: Sequence[str]
    sources: Sequence[Mapping[str, Any]]

    @property
    def phase(self) -> str:
        return self.adapter.phase

    @property
    def folder(self) -> Path:
        return self.adapter.folder


@dataclass(frozen=True)
class Subject:
    """A phase's result.

    Attributes:
        chain, phase, title, description: names and words of the phase's file.
        system_prompt: that the phase was trained with; empty for none.
        base_model: the model's source on Kaggle; `base` is its folder here.
        pad: {"token", "id"} of the token that ends an answer and pads.
        lora: the chain's LoRA configuration.
        quantization: of the frozen base in training: "none" or "nf4".
        parts: the adapters it is made of, root first.
        work: folder in which a merged model may lie for a while.
    """

    chain: str
    phase: str
    title: str
    description: str
    system_prompt: str
    base_model: str
    seed: int
    pad: dict[str, Any]
    lora: dict[str, Any]
    quantization: str
    parts: Sequence[Part]
    base: Path
    work: Path

    @property
    def adapters(self) -> list[Adapter]:
        """The adapters as the runtime takes them."""
        return [part.adapter for part in self.parts]

    @property
    def tokens(self) -> list[str]:
        """The tokens whose rows the chain trained: they count wherever they stand in a prompt."""
        return list(dict.fromkeys(token for part in self.parts for token in part.tokens))

    @property
    def lineage(self) -> list[dict[str, str]]:
        """The adapters by hash, root first, as a report or a manifest has them."""
        return [{"phase": each.phase, "sha256": each.sha256} for each in self.adapters]

    @property
    def last(self) -> Part:
        """The phase's own adapter, with the tokenizer that was saved beside it."""
        return self.parts[-1]


@contextmanager
def stops_told() -> Iterator[None]:
    """Turns the runtime's reasons to stop into errors that the command line prints."""
    try:
        yield
    except Stop as stop:
        raise InputError(stop.reason, stop.cure) from stop


def need(extra: str, *packages: str) -> None:
    """Look for packages without importing them.

    Raises:
        InputError: some are missing; says which extra of kchain brings them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(f"this needs {', '.join(missing)}", f'pip install "kchain[{extra}]"')
