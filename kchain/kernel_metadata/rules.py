"""Kaggle's rules for `kernel-metadata.json`, as data.

Sources: `kernels_push` and `validate_*` of the client kaggle 2.2.4, Kaggle's docs/kernels.md of February 2026, and the
client's list of retired accelerators.
"""

from __future__ import annotations

from kchain.kernel_metadata.problem import Rule
from kchain.phases import ACCELERATORS, RETIRED, TPUS

SOURCE_LIMIT = 2**20
TITLE_LENGTH = (5, 50)
LANGUAGES = ("python", "r", "rmarkdown")
KERNEL_TYPES = ("script", "notebook")
GPU_SHAPES = frozenset(name for name, machine in ACCELERATORS.items() if machine.is_gpu and machine.kaggle)
# Names of kchain's for machines that a kchain server may run on.
OWN_SHAPES = frozenset(name for name, machine in ACCELERATORS.items() if machine.is_gpu and not machine.kaggle)
SHAPES = GPU_SHAPES | TPUS
# What an enabled GPU is when no machine is named.
DEFAULT_GPU = "NvidiaTeslaT4"

FLAGS = ("is_private", "enable_gpu", "enable_tpu", "enable_internet")
SOURCE_FORMS: dict[str, tuple[str, str]] = {
    "dataset_sources": (r"[\w.-]+/[\w.-]+(/\d+)?", "owner/slug"),
    "kernel_sources": (r"[\w.-]+/[\w.-]+(/\d+)?", "owner/slug"),
    "model_sources": (r"[\w.-]+/[\w.-]+/[\w.-]+/[\w.-]+/\d+", "owner/model/framework/variation/version"),
    "competition_sources": (r"[\w.-]+", "slug"),
}

TITLE = Rule("KC101", "error", "Kaggle takes titles of 5 to 50 characters.", "Give the kernel a title of that length.")
SLUG = Rule(
    "KC102",
    "error",
    "Kaggle makes the address from the title, whatever id says: what is pushed is not what status asks about.",
    "Make id and title agree.",
)
ID = Rule("KC103", "error", "Without an address nothing can be pushed.", 'Write "id": "owner/slug".')
CODE_FILE = Rule(
    "KC104",
    "error",
    "Kaggle's client sends the one file that code_file names.",
    "Name the notebook that lies beside the metadata.",
)
KIND = Rule(
    "KC105",
    "error",
    "The client refuses other words.",
    f"language: {', '.join(LANGUAGES)}; kernel_type: {', '.join(KERNEL_TYPES)}.",
)
UNKNOWN_SHAPE = Rule(
    "KC106",
    "error",
    "Kaggle has no machine of that name, and gives you another one without a word.",
    f"machine_shape is one of {', '.join(sorted(SHAPES))}; leave the key out for a CPU.",
)
RETIRED_SHAPE = Rule(
    "KC107",
    "error",
    "Kaggle retired that machine and silently gives you another one.",
    "Name a machine that exists: " + ", ".join(f"{new} in place of {old}" for old, new in RETIRED.items()) + ".",
)
ACCELERATOR = Rule(
    "KC108",
    "error",
    "The machine and the switches enable_gpu and enable_tpu contradict each other.",
    "Switch on what the machine has, and nothing else.",
)
SOURCE = Rule(
    "KC109",
    "error",
    "A source that Kaggle does not find is not mounted, and the kernel runs without it.",
    "Write each source as its list wants it.",
)
FLAG = Rule("KC110", "error", "A switch is on or off.", "Write true or false.")
PUBLIC = Rule(
    "KC111",
    "warning",
    "Anyone can read a public kernel and its output.",
    'Write "is_private": true, unless that is what you want.',
)
OWN_SOURCE = Rule(
    "KC112",
    "warning",
    "Nobody has shown that Kaggle mounts the last output of the kernel that runs.",
    "Attach a data set made of that output; kchain tries both for a phase of several sessions.",
)
