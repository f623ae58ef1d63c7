"""What is linted: a folder with its metadata and its code, read without trusting any of it."""

from __future__ import annotations

import ast
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kchain.bundle.hash import cells_of, text
from kchain.bundle.lint.finding import NO_METADATA, NO_NOTEBOOK, NOT_PYTHON, Finding, finding
from kchain.bundle.lint.magics import plain
from kchain.errors import InputError
from kchain.kernel_metadata import METADATA_FILE, NOTEBOOK_FILE


@dataclass(frozen=True)
class Code:
    """One piece of Python: a cell, a file that a cell writes, or a whole script.

    Attributes:
        where: "cell 3" or the file's name.
        tree: None where the piece is no Python, or does not compile.
        shell: (line, command) of its shell lines.
    """

    where: str
    tree: ast.Module | None
    shell: tuple[tuple[int, str], ...]


@dataclass
class Subject:
    """A bundle folder as it was found.

    Attributes:
        metadata: empty where there is none that can be read.
        name: of the file with the code.
        source: its text as it lies on disk, None where it cannot be read.
        notebook: the notebook in it; None for a script or where it is none.
        texts: (where, text) of everything a person wrote: cells, or the script.
        codes: the Python in it.
        findings: what already went wrong in reading it.
    """

    folder: Path
    metadata: dict[str, Any]
    name: str
    source: str | None = None
    notebook: dict[str, Any] | None = None
    texts: list[tuple[str, str]] = field(default_factory=list)
    codes: list[Code] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def read_subject(folder: Path) -> Subject:
    """Read a folder; whatever is missing or broken in it is a finding.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder", "lint a folder with a notebook and its kernel-metadata.json")
    findings: list[Finding] = []
    metadata = _metadata(folder, findings)
    named = metadata.get("code_file")
    name = named if isinstance(named, str) and named else _only_notebook(folder)
    subject = Subject(folder, metadata, name, findings=findings)
    subject.source = _text(folder / name, NO_NOTEBOOK, findings)
    if subject.source is not None:
        _take_apart(subject, subject.source)
    return subject


def _metadata(folder: Path, findings: list[Finding]) -> dict[str, Any]:
    found = _text(folder / METADATA_FILE, NO_METADATA, findings)
    if found is None:
        return {}
    try:
        metadata = json.loads(found)
    except (ValueError, RecursionError) as error:
        findings.append(finding(NO_METADATA, METADATA_FILE, f"it is not JSON: {error}"))
        return {}
    if not isinstance(metadata, dict):
        findings.append(finding(NO_METADATA, METADATA_FILE, "it is no JSON object"))
        return {}
    return metadata


def _only_notebook(folder: Path) -> str:
    """The notebook of a folder whose metadata names none."""
    found = sorted(path.name for path in folder.glob("*.ipynb"))
    return found[0] if found else NOTEBOOK_FILE


def _text(path: Path, rule: Any, findings: list[Finding]) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        findings.append(finding(rule, path.name, f"it cannot be read: {error.strerror or error}"))
    except UnicodeDecodeError:
        findings.append(finding(rule, path.name, "it is not UTF-8 text"))
    return None


def _take_apart(subject: Subject, source: str) -> None:
    if subject.metadata.get("kernel_type") == "script" or not subject.name.endswith(".ipynb"):
        subject.texts.append((subject.name, source))
        if subject.name.endswith(".py"):
            subject.codes.append(_code(subject.name, source, (), subject.findings))
        return
    try:
        subject.notebook = cells_of(source)
    except ValueError as error:
        subject.findings.append(finding(NO_NOTEBOOK, subject.name, f"it is no notebook: {error}"))
        return
    for number, cell in enumerate(subject.notebook["cells"], 1):
        where, content = f"cell {number}", text(cell)
        subject.texts.append((where, content))
        if cell["cell_type"] == "code" and subject.metadata.get("language", "python") == "python":
            without = plain(content)
            subject.codes.append(_code(where, without.python, without.shell, subject.findings))


def _code(where: str, python: str | None, shell: tuple[tuple[int, str], ...], findings: list[Finding]) -> Code:
    tree = None
    if python is not None:
        try:
            tree = _compile(python)
        except SyntaxError as error:
            findings.append(finding(NOT_PYTHON, f"{where}, line {error.lineno or 1}", f"not Python: {error.msg}"))
        except (ValueError, RecursionError, MemoryError) as error:
            findings.append(finding(NOT_PYTHON, where, f"not Python: {error or type(error).__name__}"))
    return Code(where, tree, shell)


def _compile(python: str) -> ast.Module:
    """The syntax tree; IPython lets `await` stand outside of functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about escapes in someone else's text
        tree = ast.parse(python)
        compile(python, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return tree
