"""Where the adapter of each ancestor is mounted from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kchain.phases import Chain


@dataclass(frozen=True)
class AdapterSource:
    """One ancestor's adapter, as a session finds it.

    Attributes:
        phase: the ancestor.
        kind: "kernel" (the output of its kernel) or "dataset".
        ref: `owner/slug` of that kernel or data set.
        folder: where in its mount the adapter lies; empty for the mount itself.
        sha256: of `adapter_model.safetensors`; known beforehand only for an adopted adapter.
    """

    phase: str
    kind: Literal["kernel", "dataset"]
    ref: str
    folder: str = "adapter"
    sha256: str | None = None


def adapter_sources(chain: Chain, phase_name: str, adopted: Mapping[str, AdapterSource]) -> tuple[AdapterSource, ...]:
    """The adapters a phase is built on, root first: each ancestor's own kernel, or where it was adopted from.

    Raises:
        InputError: the chain has no phase of that name.
    """
    return tuple(
        adopted.get(ancestor.name) or AdapterSource(ancestor.name, "kernel", chain.kernel(ancestor.name))
        for ancestor in chain.lineage(phase_name)
    )
