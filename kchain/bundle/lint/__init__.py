"""Checks on a bundle folder, whoever wrote it: each finding has a rule, a place, a reason and a cure."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from kchain.bundle.folder import source_bytes
from kchain.bundle.lint.machine import guarded_pads, machine_fits, secrets, what_is_told
from kchain.bundle.lint.notebook import (
    MERGE_4BIT,
    NO_KERNELSPEC,
    NO_NOTEBOOK,
    PAD_GUARD,
    TOO_LARGE,
    Finding,
    Linted,
    finding,
    read_subject,
)
from kchain.bundle.lint.quantized import merges_into_4bit
from kchain.kernel_metadata import METADATA_FILE, SOURCE_LIMIT, problems

__all__ = ["Finding", "lint"]


def lint(folder: Path) -> list[Finding]:
    """Everything that is wrong with a bundle folder: errors first, then by rule.

    Raises:
        InputError: there is no such folder.
    """
    subject = read_subject(folder)
    checks = (_metadata, _notebook, _size, machine_fits, _training, secrets)
    found = [*subject.findings, *(found for check in checks for found in check(subject))]
    return sorted(found, key=lambda one: (one.severity != "error", one.rule))


def _metadata(subject: Linted) -> Iterator[Finding]:
    if subject.metadata:
        target = what_is_told(subject.codes).target
        for problem in problems(subject.metadata, kaggle=target in (None, "kaggle")):
            yield finding(problem.rule, f"{METADATA_FILE}: {problem.key}", problem.message)


def _notebook(subject: Linted) -> Iterator[Finding]:
    if subject.notebook is None:
        return
    metadata = subject.notebook.get("metadata")
    spec = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    if not isinstance(spec, dict) or not spec.get("name"):
        yield finding(NO_KERNELSPEC, subject.name, "its metadata names no kernelspec")
    if subject.notebook.get("nbformat") != 4:
        yield finding(NO_NOTEBOOK, subject.name, f"nbformat is {subject.notebook.get('nbformat')!r:.20}, not 4")


def _size(subject: Linted) -> Iterator[Finding]:
    if subject.source is None:
        return
    sent = source_bytes(subject.notebook) if subject.notebook else len(subject.source.encode())
    if sent > SOURCE_LIMIT:
        yield finding(TOO_LARGE, subject.name, f"{sent / 2**20:.2f} MiB as sent")


def _training(subject: Linted) -> Iterator[Finding]:
    codes = [code for code in subject.codes if code.tree is not None]
    trees = [code.tree for code in codes if code.tree is not None]
    for index, guard in guarded_pads(trees):
        line = getattr(guard, "lineno", 1)
        yield finding(PAD_GUARD, f"{codes[index].where}, line {line}", "the pad token is set only where there is none")
    for index, call in merges_into_4bit(trees):
        message = f"{ast.unparse(call.func)[-60:]}() on a model that was loaded in 4 bits"
        yield finding(MERGE_4BIT, f"{codes[index].where}, line {call.lineno}", message)
