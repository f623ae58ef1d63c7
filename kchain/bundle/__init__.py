"""The reviewable folder of a phase: build, write, read, hash, compare. Linting is in `kchain.bundle.lint`."""

from kchain.bundle.bundle import Bundle, build, continuation_of, continued, parameters_of, parse, same_training
from kchain.bundle.cells import canonical_hash, cell_diff, code_hash, find_hash, same_cells
from kchain.bundle.folder import bundle_folder, metadata_text, notebook_text, read, source_bytes, write
from kchain.kernel_metadata import AdapterSource, Continuation, adapter_sources

__all__ = [
    "AdapterSource",
    "Bundle",
    "Continuation",
    "adapter_sources",
    "build",
    "bundle_folder",
    "canonical_hash",
    "cell_diff",
    "code_hash",
    "continuation_of",
    "continued",
    "find_hash",
    "metadata_text",
    "notebook_text",
    "parameters_of",
    "parse",
    "read",
    "same_cells",
    "same_training",
    "source_bytes",
    "write",
]
