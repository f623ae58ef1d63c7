"""What a later session of a phase is told: which session it is, and where the checkpoint before it is mounted from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

# Where a session leaves its checkpoint in its output.
CHECKPOINT_FOLDER = "checkpoint"
# The list of `kernel-metadata.json` that each kind of source stands in.
SOURCE_KEYS = {"kernel": "kernel_sources", "dataset": "dataset_sources"}


@dataclass(frozen=True)
class Continuation:
    """PARAMETERS["continuation"] of a later session.

    Attributes:
        session: number of this session of the phase, 2 or more.
        kind: what is mounted: "kernel" (the phase's own last output) or "dataset" (a copy of the checkpoint).
        ref: `owner/slug` of that kernel or data set.
        folder: where in its mount the checkpoint lies; empty for the mount itself.
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
