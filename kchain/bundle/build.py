"""A phase as a bundle: its notebook, its metadata, and the hash that may be pushed. Pure and deterministic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kchain.bundle.hash import canonical_hash, code_hash, stamp
from kchain.errors import InputError
from kchain.kernel_metadata import AdapterSource, adapter_sources, kernel_metadata
from kchain.phases import Chain
from kchain.phases.accelerators import not_on_kaggle
from kchain.templates import notebook

if TYPE_CHECKING:
    from nbformat import NotebookNode


@dataclass(frozen=True)
class Bundle:
    """What a person reviews and what is pushed.

    Attributes:
        target: who it is for: kaggle, local or a URL.
        kernel: `owner/slug`.
        metadata: the content of `kernel-metadata.json`.
        timeout: seconds after which the target ends the session.
        hash: canonical hash, which also stands in the notebook as BUNDLE.
        code_hash: equal for two bundles that run the same code.
    """

    target: str
    phase: str
    kernel: str
    title: str
    notebook: NotebookNode
    metadata: dict[str, Any]
    timeout: int
    hash: str
    code_hash: str


def build(chain: Chain, phase_name: str, target: str, adopted: Mapping[str, AdapterSource]) -> Bundle:
    """Render a phase for a target.

    Args:
        adopted: ancestors whose adapter was trained elsewhere, by phase name.

    Raises:
        InputError: the chain has no phase of that name, or its machine is none of the target's.
    """
    phase = chain.phase(phase_name)
    if target == "kaggle" and (problem := not_on_kaggle(phase.accelerator)):
        raise InputError(f"{phase.file}: accelerator: {problem}")
    sources = adapter_sources(chain, phase_name, adopted)
    cells = notebook(chain, phase_name, target, sources)
    metadata = kernel_metadata(chain, phase_name, sources)
    found = canonical_hash(cells, metadata, phase.session_timeout)
    stamp(cells, found)
    return Bundle(
        target=target,
        phase=phase_name,
        kernel=chain.kernel(phase_name),
        title=phase.title,
        notebook=cells,
        metadata=metadata,
        timeout=phase.session_timeout,
        hash=found,
        code_hash=code_hash(cells),
    )
