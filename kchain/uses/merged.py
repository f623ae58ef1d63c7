"""The chain as an ordinary model: every adapter added to the base in fp32, rounded once to fp16.

It is made, as every export is, in a workshop: a folder beside its place on the same disk. What is done there is flushed
and renamed, and nothing is replaced that kchain did not write.
"""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kchain.errors import InputError
from kchain.files import sync_folder
from kchain.runtime.contract import EXPORT_MANIFEST
from kchain.units import size
from kchain.uses.companions import copy_licences, copy_tokenizer, force_ids
from kchain.uses.subject import TrainedPhase, stops_told

# What kchain wrote, and may replace: a folder that has EXPORT_MANIFEST, or a file that begins like this.
GGUF_MAGIC = b"GGUF"
# Bytes that stay free on the disk.
SPARE = 64 * 1024**2
# Seconds without a change after which a workshop was left by an export that died.
LEFT = 24 * 3600


@contextmanager
def merged_model(subject: TrainedPhase) -> Iterator[Path]:
    """The folder of the merged chain, as it is exported; it is gone afterwards.

    Raises:
        InputError: the disk has too little room for it, or an adapter does not fit.
    """
    needed = sum(file.stat().st_size for file in subject.base.glob("*.safetensors"))
    with workshop(subject.work, needed, force=False) as shop:
        write_merged(subject, shop / "model")
        yield shop / "model"


def write_merged(subject: TrainedPhase, folder: Path) -> list[str]:
    """Write the model, its tokenizer and its configurations into `folder`, which must not exist.

    Returns:
        The names of the licence texts that were copied along.

    Raises:
        InputError: an adapter does not fit the base, or a sum does not fit into fp16.
    """
    from kchain.runtime.merge import merge
    from kchain.runtime.tokenizer import tokenizer_folder

    with stops_told():
        merge(subject.base, subject.adapters, subject.lora, folder)
    copy_tokenizer(tokenizer_folder(subject.base, subject.adapters), subject.base, folder, subject.pad)
    force_ids(folder, subject.pad)
    return copy_licences(subject.base, folder)


@contextmanager
def workshop(out: Path, needed: int, force: bool) -> Iterator[Path]:
    """An empty folder beside `out` to work in; it is gone afterwards.

    Args:
        needed: bytes that will be written.
        force: whether an earlier export may be replaced.

    Raises:
        InputError: `out` exists and may not be replaced, or the disk has too little room.
    """
    if out.exists():
        if not _is_export(out):
            raise InputError(f"{out} exists, and is not an export of kchain", "choose another place: --out PATH")
        if not force:
            raise InputError(f"{out} exists", "replace it with --force, or choose another place: --out PATH")
    parent = out.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{out.name}-"
    _sweep(parent, prefix)
    free = shutil.disk_usage(parent).free
    if free < needed + SPARE:
        raise InputError(
            f"{parent}: {size(needed + SPARE)} are needed, {size(free)} are free",
            "free disk space, or choose another disk: --out PATH",
        )
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name:
        yield Path(name)


def put_in_place(made: Path, out: Path) -> None:
    """Give what was made in the workshop its name; what was there before goes when the new one is in place."""
    for path in sorted(made.rglob("*")) if made.is_dir() else [made]:
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    before = made.with_name(f"{made.name}.before")
    if out.exists():
        out.rename(before)
    try:
        made.rename(out)
    except OSError:
        if before.exists():
            before.rename(out)
        raise
    sync_folder(out.absolute().parent)


def _is_export(out: Path) -> bool:
    if out.is_dir():
        return (out / EXPORT_MANIFEST).is_file()
    with out.open("rb") as file:
        return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC


def _sweep(parent: Path, prefix: str) -> None:
    """Remove workshops that an export left when it was killed: each may hold a whole model."""
    for old in parent.glob(f"{glob.escape(prefix)}*"):
        newest = max(path.lstat().st_mtime for path in (old, *old.rglob("*")))
        if time.time() - newest > LEFT:
            shutil.rmtree(old, ignore_errors=True)
