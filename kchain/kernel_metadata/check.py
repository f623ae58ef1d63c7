"""Kaggle's rules for `kernel-metadata.json`, and the check of one against them; run before each push."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from slugify import slugify

from kchain.phases import ACCELERATORS, RETIRED, TPUS

Severity = Literal["error", "warning"]
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


@dataclass(frozen=True)
class Rule:
    """A thing that goes wrong on Kaggle.

    Attributes:
        id: KC and three digits; it never changes its meaning.
        reason: why it goes wrong.
        cure: what to do about it.
    """

    id: str
    severity: Severity
    reason: str
    cure: str


@dataclass(frozen=True)
class Problem:
    """One place in `kernel-metadata.json` that breaks a rule.

    Attributes:
        key: the key, or several joined by commas.
        message: what is wrong there.
    """

    rule: Rule
    key: str
    message: str


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
    "Name the notebook beside the metadata.",
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
    "Kaggle has no machine of that name, and silently gives you another one.",
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
    "It is not known whether Kaggle mounts the last output of the kernel that runs.",
    "Attach a data set made of that output; kchain tries both for a phase of several sessions.",
)


def problems(metadata: Mapping[str, Any], *, kaggle: bool = True) -> list[Problem]:
    """Everything that is wrong with it, whoever wrote it; an empty list is a pass.

    Args:
        kaggle: False: it is for a kchain server, which may run on machines that Kaggle does not have.
    """
    checks = (_title, _identity, _file, _kind, _flags, _machine, _sources)
    found = [problem for check in checks for problem in check(metadata)]
    own = not kaggle and str(metadata.get("machine_shape")) in OWN_SHAPES
    return [problem for problem in found if not (own and problem.rule is UNKNOWN_SHAPE)]


def _title(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    title = metadata.get("title")
    low, high = TITLE_LENGTH
    if title is None:
        # Only the id of an existing kernel can do without one.
        if metadata.get("id_no") is None:
            yield Problem(TITLE, "title", "there is no title")
    elif not isinstance(title, str):
        yield Problem(TITLE, "title", f"the title is {title!r:.60}, which is not a text")
    elif not low <= len(title) <= high:
        yield Problem(TITLE, "title", f"the title has {len(title)} characters")


def _identity(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    kernel, title = metadata.get("id"), metadata.get("title")
    if kernel is None and metadata.get("id_no") is not None:
        return
    if not isinstance(kernel, str) or not re.fullmatch(r"[\w-]+/[\w-]+", kernel):
        yield Problem(ID, "id", f"id is {kernel!r:.80}, which is not owner/slug")
        return
    slug = kernel.split("/")[1]
    if isinstance(title, str) and slug != (made := slugify(title)):
        yield Problem(SLUG, "id", f"the title gives the address {made!r}, id says {slug!r}")
    elif len(slug) < TITLE_LENGTH[0] and len(str(title)) >= TITLE_LENGTH[0]:
        yield Problem(SLUG, "id", f"the address {slug!r} has fewer than {TITLE_LENGTH[0]} characters")


def _file(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    name = metadata.get("code_file")
    if not isinstance(name, str) or not name:
        yield Problem(CODE_FILE, "code_file", "code_file names no file")


def _kind(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    for key, allowed in (("language", LANGUAGES), ("kernel_type", KERNEL_TYPES)):
        if metadata.get(key) not in allowed:
            yield Problem(KIND, key, f"{key} is {metadata.get(key)!r:.60}")


def _flags(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    for key in FLAGS:
        if key in metadata and flag(metadata, key, default=False) is None:
            yield Problem(FLAG, key, f"{key} is {metadata[key]!r:.60}")
    if flag(metadata, "is_private", default=True) is False:
        yield Problem(PUBLIC, "is_private", "the kernel will be public")


def flag(metadata: Mapping[str, Any], key: str, *, default: bool) -> bool | None:
    """A switch as Kaggle's client reads it ("true" and "false" count); None for anything else."""
    value = metadata.get(key, default)
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _machine(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    shape = metadata.get("machine_shape")
    gpu, tpu = flag(metadata, "enable_gpu", default=False), flag(metadata, "enable_tpu", default=False)
    if gpu and tpu:
        yield Problem(ACCELERATOR, "enable_gpu, enable_tpu", "both GPU and TPU are on")
    # Kaggle's client sends an empty machine_shape as it is, and Kaggle takes it for none.
    if shape in (None, ""):
        return
    if not isinstance(shape, str):
        yield Problem(UNKNOWN_SHAPE, "machine_shape", f"machine_shape is {shape!r:.60}, which is not a text")
    elif shape in RETIRED:
        yield Problem(RETIRED_SHAPE, "machine_shape", f"{shape} is retired; Kaggle gives a {RETIRED[shape]}")
    elif shape not in SHAPES:
        yield Problem(UNKNOWN_SHAPE, "machine_shape", f"Kaggle has no machine {shape!r:.60}")
    elif shape in TPUS and not tpu:
        yield Problem(ACCELERATOR, "machine_shape, enable_tpu", f"{shape} is a TPU, and enable_tpu is off")
    elif shape in GPU_SHAPES and not gpu:
        yield Problem(ACCELERATOR, "machine_shape, enable_gpu", f"{shape} has GPUs, and enable_gpu is off")


def _sources(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    for key, (form, words) in SOURCE_FORMS.items():
        sources = metadata.get(key, [])
        if not isinstance(sources, list):
            yield Problem(SOURCE, key, f"{key} is not a list")
            continue
        for source in sources:
            if not isinstance(source, str) or not re.fullmatch(form, source):
                yield Problem(SOURCE, key, f"{source!r:.80} is not {words}")
    kernels = metadata.get("kernel_sources", [])
    if isinstance(kernels, list) and metadata.get("id") in kernels:
        yield Problem(OWN_SOURCE, "kernel_sources", "the kernel is its own source")
