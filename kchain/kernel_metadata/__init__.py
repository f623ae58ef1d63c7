"""WHERE it runs: `kernel-metadata.json` from a phase, and Kaggle's rules for it."""

from kchain.kernel_metadata.build import (
    METADATA_FILE,
    NOTEBOOK_FILE,
    AdapterSource,
    Continuation,
    adapter_sources,
    kernel_metadata,
    with_continuation,
)
from kchain.kernel_metadata.check import DEFAULT_GPU, SOURCE_LIMIT, Problem, Rule, Severity, flag, problems

__all__ = [
    "DEFAULT_GPU",
    "METADATA_FILE",
    "NOTEBOOK_FILE",
    "SOURCE_LIMIT",
    "AdapterSource",
    "Continuation",
    "Problem",
    "Rule",
    "Severity",
    "adapter_sources",
    "flag",
    "kernel_metadata",
    "problems",
    "with_continuation",
]
