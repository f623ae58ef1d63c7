"""`kernel-metadata.json` of a phase."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kchain.kernel_metadata.sources import AdapterSource
from kchain.phases import Chain, Phase

METADATA_FILE = "kernel-metadata.json"
NOTEBOOK_FILE = "notebook.ipynb"


def kernel_metadata(chain: Chain, phase_name: str, sources: Iterable[AdapterSource]) -> dict[str, Any]:
    """What Kaggle is told about the kernel of a phase.

    Args:
        sources: the adapters it is built on, root first; each is mounted as a kernel output or a data set.

    Raises:
        InputError: the chain has no phase of that name.
    """
    phase = chain.phase(phase_name)
    adapters = tuple(sources)
    return {
        "id": chain.kernel(phase_name),
        "title": phase.title,
        "code_file": NOTEBOOK_FILE,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        **_machine(phase),
        "enable_internet": phase.internet,
        "dataset_sources": _once([*_data_sets(phase), *_refs(adapters, "dataset")]),
        "kernel_sources": _once(_refs(adapters, "kernel")),
        "model_sources": [chain.model.source],
        "competition_sources": [],
        "keywords": [],
    }


def _machine(phase: Phase) -> dict[str, Any]:
    """The accelerator; without one the key is left out, as Kaggle has no word for a CPU."""
    words: dict[str, Any] = {"enable_gpu": phase.accelerator.is_gpu, "enable_tpu": False}
    return {**words, "machine_shape": phase.accelerator.name} if phase.accelerator.is_gpu else words


def _data_sets(phase: Phase) -> list[str]:
    return [source.dataset for source in phase.data.sources if source.dataset is not None]


def _refs(adapters: Iterable[AdapterSource], kind: str) -> list[str]:
    return [adapter.ref for adapter in adapters if adapter.kind == kind]


def _once(refs: Iterable[str]) -> list[str]:
    """Each reference once, in the order of its first mention."""
    return list(dict.fromkeys(refs))
