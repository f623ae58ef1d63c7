"""The bundle as a folder: `build/<target>/<phase>/`, which Kaggle's own command line can push too."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from slugify import slugify

from kchain.bundle.bundle import Bundle, parse
from kchain.bundle.cells import find_hash, text
from kchain.errors import InputError
from kchain.files import write as write_file
from kchain.kernel_metadata import METADATA_FILE, NOTEBOOK_FILE

BUILD = "build"


def bundle_folder(root: Path, target: str, phase_name: str) -> Path:
    """Where the bundle of a phase is in the project `root`."""
    return root / BUILD / (target if target in {"kaggle", "local"} else slugify(target)) / phase_name


def write(bundle: Bundle, root: Path) -> Path:
    """Write the bundle below the project `root`, replacing the folder as a whole; nothing changes if nothing differs.

    Returns:
        the folder.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = bundle_folder(root, bundle.target, bundle.phase)
    files = {NOTEBOOK_FILE: notebook_text(bundle), METADATA_FILE: metadata_text(bundle.metadata)}
    try:
        same = folder.is_dir() and {entry.name for entry in folder.iterdir()} == files.keys()
        if not same or any((folder / name).read_bytes() != content.encode() for name, content in files.items()):
            _replace(folder, files)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}") from error
    return folder


def read(folder: Path) -> Bundle:
    """The bundle in a folder that kchain wrote.

    Raises:
        InputError: it is not a bundle of kchain's, or it was edited after it was rendered.
    """
    try:
        source = (folder / NOTEBOOK_FILE).read_text(encoding="utf-8")
        bundle = parse(source, (folder / METADATA_FILE).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror or error}", "kchain render") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} does not hold a bundle of kchain's: {error}", "kchain render") from None
    if find_hash(source) != bundle.hash:
        raise InputError(
            f"{folder} was edited after it was rendered",
            f"change the phase file instead, then: kchain render {bundle.phase}",
        )
    return bundle


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """`kernel-metadata.json` as it is written."""
    return json.dumps(metadata, indent=2, ensure_ascii=False) + "\n"


def source_bytes(notebook: Mapping[str, Any]) -> int:
    """Size of a notebook as Kaggle's client sends it: sources joined, outputs emptied, plain ASCII JSON."""
    cells = [{**cell, "source": text(cell)} for cell in notebook["cells"]]
    empty = [{**cell, "outputs": []} if cell["cell_type"] == "code" and "outputs" in cell else cell for cell in cells]
    return len(json.dumps({**notebook, "cells": empty}))


def notebook_text(bundle: Bundle) -> str:
    """The notebook as it is written."""
    import nbformat

    text_of: Callable[[Any], str] = nbformat.writes
    return text_of(bundle.notebook) + "\n"


def _replace(folder: Path, files: Mapping[str, str]) -> None:
    """Put a complete folder in the place of the old one; a crash leaves the old one, none, or the new one."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        for name, content in files.items():
            write_file(fresh / name, content)
        if folder.is_dir():
            folder.rename(old)
        elif folder.exists() or folder.is_symlink():
            folder.unlink()
        fresh.rename(folder)
