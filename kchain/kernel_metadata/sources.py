"""Where the adapter of each ancestor is mounted from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
        use: "merge" it into the base, or "continue" it: train it on.
    """

    phase: str
    kind: Literal["kernel", "dataset"]
    ref: str
    folder: str = "adapter"
    sha256: str | None = None
    use: Literal["merge", "continue"] = "merge"


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
