"""What is exported: a phase's adapters, the base model they belong to, and the words of the runtime for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kchain.errors import InputError
from kchain.export.companions import read_json
from kchain.orchestrator.base_model import base_folder
from kchain.orchestrator.finished import Link, finished
from kchain.orchestrator.journal import Key, read_states
from kchain.orchestrator.target import Target
from kchain.phases import Chain
from kchain.runtime.adapters import Adapter
from kchain.runtime.failure import Stop


@dataclass(frozen=True)
class Subject:
    """A phase's result: `links` are the verified adapters it is made of, root first; `base` is the original model."""

    chain: Chain
    phase: str
    links: Sequence[Link]
    base: Path

    @property
    def adapters(self) -> list[Adapter]:
        """The adapters as the runtime takes them."""
        return [
            Adapter(link.phase, link.recorded.kind, link.recorded.ref, link.folder, link.sha256, link.bytes)
            for link in self.links
        ]

    @property
    def lora(self) -> dict[str, Any]:
        """The chain's LoRA configuration as the notebook's PARAMETERS have it."""
        return self.chain.phase(self.phase).lora.model_dump()

    @property
    def pad(self) -> dict[str, Any]:
        """The token that ends an answer and pads."""
        return {"token": self.chain.model.eos_token, "id": self.chain.model.eos_id}

    @property
    def last(self) -> Path:
        """The folder of the phase's own adapter, with the tokenizer that was saved beside it."""
        return self.links[-1].folder


def read_subject(chain: Chain, phase: str, target: Target, base: Path | None) -> Subject:
    """A finished phase as it lies on this machine.

    Args:
        base: folder of the base model; None: the one that the server on this machine has.

    Raises:
        NotNow, InputError, AdapterRefused: see `finished` and `base_folder`.
    """
    states = read_states(chain.root, Key(target.name, chain.owner, chain.name))
    links = finished(chain, states, phase)
    folder = base_folder(chain, target, base, links)
    for file in sorted(folder.glob("*.json")):
        read_json(file)  # damage is told now, by name, not by whichever library meets it first
    return Subject(chain, phase, links, folder)


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
