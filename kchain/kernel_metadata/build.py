"""`kernel-metadata.json` of a phase: where it runs, what is mounted, and where from.

A session mounts the adapter of each ancestor; a later session of a phase also mounts the checkpoint before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from kchain.phases import Chain
from kchain.runtime.contract import ADAPTER

METADATA_FILE = "kernel-metadata.json"
NOTEBOOK_FILE = "notebook.ipynb"
# The list of `kernel-metadata.json` that each kind of source stands in.
SOURCE_KEYS = {"kernel": "kernel_sources", "dataset": "dataset_sources"}


@dataclass(frozen=True)
class AdapterSource:
    """One ancestor's adapter, as a session finds it.

    Attributes:
        phase: the ancestor.
        kind: "kernel" (the output of its kernel) or "dataset".
        ref: `owner/slug` of that kernel or data set.
        folder: where in its mount the adapter is; empty for the mount itself.
        sha256: of `adapter_model.safetensors`; known beforehand only for an adopted adapter.
        use: "merge" it into the base, or "continue" it: train it on.
    """

    phase: str
    kind: Literal["kernel", "dataset"]
    ref: str
    folder: str = ADAPTER
    sha256: str | None = None
    use: Literal["merge", "continue"] = "merge"


@dataclass(frozen=True)
class Continuation:
    """PARAMETERS["continuation"] of a later session.

    Attributes:
        session: number of this session of the phase, 2 or more.
        kind: what is mounted: "kernel" (the phase's own last output) or "dataset" (a copy of the checkpoint).
        ref: `owner/slug` of that kernel or data set.
        folder: where in its mount the checkpoint is; empty for the mount itself.
        sha256: of the checkpoint's manifest.json.
    """

    session: int
    kind: Literal["kernel", "dataset"]
    ref: str
    folder: str
    sha256: str

    @property
    def source(self) -> str:
        """The source as a target names it that cannot mount it."""
        return f"{'data set' if self.kind == 'dataset' else self.kind} {self.ref}"


def adapter_sources(chain: Chain, phase_name: str, adopted: Mapping[str, AdapterSource]) -> tuple[AdapterSource, ...]:
    """The adapters a phase is built on, root first: each ancestor's own kernel, or where it was adopted from.

    One that the phase trains on comes last; those that were trained on before are not needed any more.

    Raises:
        InputError: the chain has no phase of that name.
    """
    found = [
        adopted.get(ancestor.name) or AdapterSource(ancestor.name, "kernel", chain.kernel(ancestor.name))
        for ancestor in chain.lineage(phase_name)
    ]
    if chain.continued(phase_name) is not None:
        found[-1] = replace(found[-1], use="continue")
    return tuple(found)


def kernel_metadata(chain: Chain, phase_name: str, sources: Iterable[AdapterSource]) -> dict[str, Any]:
    """What Kaggle is told about the kernel of a phase.

    Args:
        sources: the adapters it is built on, root first; each is mounted as a kernel output or a data set.

    Raises:
        InputError: the chain has no phase of that name.
    """
    phase = chain.phase(phase_name)
    attached: dict[str, list[str]] = {
        "dataset_sources": [],
        "kernel_sources": [],
        "model_sources": [chain.model.source],
        "competition_sources": [],
    }
    for source in phase.data.sources:
        if source.kind.attached is not None:
            attached[source.kind.attached].append(source.place)
    for adapter in sources:
        attached[SOURCE_KEYS[adapter.kind]].append(adapter.ref)
    machine: dict[str, Any] = {"enable_gpu": phase.accelerator.is_gpu, "enable_tpu": False}
    if phase.accelerator.is_gpu:  # Kaggle has no word for a CPU
        machine["machine_shape"] = phase.accelerator.name
    return {
        "id": chain.kernel(phase_name),
        "title": phase.title,
        "code_file": NOTEBOOK_FILE,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        **machine,
        "enable_internet": phase.internet,
        **{key: list(dict.fromkeys(refs)) for key, refs in attached.items()},
        "keywords": [],
    }


def with_continuation(
    metadata: Mapping[str, Any], old: Continuation | None, new: Continuation | None
) -> dict[str, Any]:
    """`kernel-metadata.json` with the source of one continuation taken out and that of another put in."""
    changed = dict(metadata)
    if old is not None:
        key = SOURCE_KEYS[old.kind]
        changed[key] = [ref for ref in changed[key] if ref != old.ref]
    if new is not None:
        key = SOURCE_KEYS[new.kind]
        changed[key] = [*changed[key], new.ref]
    return changed
