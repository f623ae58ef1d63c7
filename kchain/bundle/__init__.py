"""The reviewable folder of a phase: build, write, read, hash, compare. Linting is in `kchain.bundle.lint`."""

from kchain.bundle.build import Bundle, build
from kchain.bundle.diff import diff
from kchain.bundle.folder import bundle_folder, metadata_text, read, source_bytes, write
from kchain.bundle.hash import canonical_hash, canonical_hash_of_source, code_hash, find_hash, same_cells
from kchain.kernel_metadata import AdapterSource, adapter_sources

__all__ = [
    "AdapterSource",
    "Bundle",
    "adapter_sources",
    "build",
    "bundle_folder",
    "canonical_hash",
    "canonical_hash_of_source",
    "code_hash",
    "diff",
    "find_hash",
    "metadata_text",
    "read",
    "same_cells",
    "source_bytes",
    "write",
]
