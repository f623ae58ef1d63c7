"""Files and folders that are whole or absent: written under another name, flushed to the disk, then named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Writes a text file."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    _flush(partial)
    partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON that a person can read."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def begin_folder(target: Path) -> Path:
    """An empty folder to fill in place of `target`; whatever an earlier attempt left there is removed."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def finish_folder(partial: Path, target: Path) -> None:
    """Flushes a filled folder to the disk and gives it its name."""
    for path in partial.iterdir():
        _flush(path)
    rename_folder(partial, target)


def rename_folder(partial: Path, target: Path) -> None:
    """Gives a filled folder its name, without waiting for the disk: for what would be made again after a crash."""
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)


def hash_file(path: Path) -> str:
    """Hash of a file, as `sha256sum` tells it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
