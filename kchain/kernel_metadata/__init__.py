"""WHERE it runs: `kernel-metadata.json` from a phase, and Kaggle's rules for it."""

from kchain.kernel_metadata.build import METADATA_FILE, NOTEBOOK_FILE, kernel_metadata
from kchain.kernel_metadata.check import flag, problems
from kchain.kernel_metadata.continuation import CHECKPOINT_FOLDER, Continuation, with_continuation
from kchain.kernel_metadata.problem import Problem, Rule, Severity
from kchain.kernel_metadata.rules import DEFAULT_GPU, SOURCE_LIMIT
from kchain.kernel_metadata.sources import AdapterSource, adapter_sources

__all__ = [
    "CHECKPOINT_FOLDER",
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
