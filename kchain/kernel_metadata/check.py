"""A `kernel-metadata.json` against Kaggle's rules; run before each push."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from slugify import slugify

from kchain.kernel_metadata import rules
from kchain.kernel_metadata.problem import Problem
from kchain.phases import RETIRED, TPUS


def problems(metadata: Mapping[str, Any], *, kaggle: bool = True) -> list[Problem]:
    """Everything that is wrong with it, whoever wrote it; an empty list is a pass.

    Args:
        kaggle: False: it is for a kchain server, which may run on machines that Kaggle has not got.
    """
    checks = (_title, _identity, _file, _kind, _flags, _machine, _sources)
    found = [problem for check in checks for problem in check(metadata)]
    own = not kaggle and str(metadata.get("machine_shape")) in rules.OWN_SHAPES
    return [problem for problem in found if not (own and problem.rule is rules.UNKNOWN_SHAPE)]


def _title(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    title = metadata.get("title")
    low, high = rules.TITLE_LENGTH
    if title is None:
        # Only the id of an existing kernel can do without one.
        if metadata.get("id_no") is None:
            yield Problem(rules.TITLE, "title", "there is no title")
    elif not isinstance(title, str):
        yield Problem(rules.TITLE, "title", f"the title is no text but {title!r:.60}")
    elif not low <= len(title) <= high:
        yield Problem(rules.TITLE, "title", f"the title has {len(title)} characters")


def _identity(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    kernel, title = metadata.get("id"), metadata.get("title")
    if kernel is None and metadata.get("id_no") is not None:
        return
    if not isinstance(kernel, str) or not re.fullmatch(r"[\w-]+/[\w-]+", kernel):
        yield Problem(rules.ID, "id", f"id is {kernel!r:.80}, which is no owner/slug")
        return
    slug = kernel.split("/")[1]
    if isinstance(title, str) and slug != (made := slugify(title)):
        yield Problem(rules.SLUG, "id", f"the title gives the address {made!r}, id says {slug!r}")
    elif len(slug) < rules.TITLE_LENGTH[0] and len(str(title)) >= rules.TITLE_LENGTH[0]:
        yield Problem(rules.SLUG, "id", f"the address {slug!r} has fewer than {rules.TITLE_LENGTH[0]} characters")


def _file(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    name = metadata.get("code_file")
    if not isinstance(name, str) or not name:
        yield Problem(rules.CODE_FILE, "code_file", "code_file names no file")


def _kind(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    for key, allowed in (("language", rules.LANGUAGES), ("kernel_type", rules.KERNEL_TYPES)):
        if metadata.get(key) not in allowed:
            yield Problem(rules.KIND, key, f"{key} is {metadata.get(key)!r:.60}")


def _flags(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    for key in rules.FLAGS:
        if key in metadata and flag(metadata, key, default=False) is None:
            yield Problem(rules.FLAG, key, f"{key} is {metadata[key]!r:.60}")
    if flag(metadata, "is_private", default=True) is False:
        yield Problem(rules.PUBLIC, "is_private", "the kernel will be public")


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
        yield Problem(rules.ACCELERATOR, "enable_gpu, enable_tpu", "both GPU and TPU are on")
    # Kaggle's client sends an empty machine_shape as it is, and Kaggle takes it for none.
    if shape in (None, ""):
        return
    if not isinstance(shape, str):
        yield Problem(rules.UNKNOWN_SHAPE, "machine_shape", f"machine_shape is no text but {shape!r:.60}")
    elif shape in RETIRED:
        yield Problem(rules.RETIRED_SHAPE, "machine_shape", f"{shape} is retired; Kaggle gives a {RETIRED[shape]}")
    elif shape not in rules.SHAPES:
        yield Problem(rules.UNKNOWN_SHAPE, "machine_shape", f"{shape!r:.60} is no machine of Kaggle's")
    elif shape in TPUS and not tpu:
        yield Problem(rules.ACCELERATOR, "machine_shape, enable_tpu", f"{shape} is a TPU, and enable_tpu is off")
    elif shape in rules.GPU_SHAPES and not gpu:
        yield Problem(rules.ACCELERATOR, "machine_shape, enable_gpu", f"{shape} has GPUs, and enable_gpu is off")


def _sources(metadata: Mapping[str, Any]) -> Iterator[Problem]:
    for key, (form, words) in rules.SOURCE_FORMS.items():
        sources = metadata.get(key, [])
        if not isinstance(sources, list):
            yield Problem(rules.SOURCE, key, f"{key} is no list")
            continue
        for source in sources:
            if not isinstance(source, str) or not re.fullmatch(form, source):
                yield Problem(rules.SOURCE, key, f"{source!r:.80} is no {words}")
    kernels = metadata.get("kernel_sources", [])
    if isinstance(kernels, list) and metadata.get("id") in kernels:
        yield Problem(rules.OWN_SOURCE, "kernel_sources", "the kernel is its own source")
