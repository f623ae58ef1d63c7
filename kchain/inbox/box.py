"""The folders of an inbox, files that move between them, and the job: the file in work.

A file is never overwritten, it is whole or absent, and every move can be repeated. The job is a copy of its file with
what was found out before its run began; it is on the disk, so that no kill ends it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from kchain.errors import InputError
from kchain.files import put_in_place
from kchain.runtime.files import begin_folder, hash_file, rename_folder, write_json, write_text

SHORT_HASH = 10
# File systems take names of 255 bytes; what is put around a name needs some of them.
_NAME_BYTES = 200
# The job's folder, its file of words, and the folder of its copy.
_JOB, _FILE, _DROPPED = "job", "job.json", "dropped"
_OBJECT = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class Box:
    """The folders below `root`; `state` is kchain's own."""

    root: Path

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def archive(self) -> Path:
        return self.root / "archive"

    @property
    def rejected(self) -> Path:
        return self.root / "rejected"

    @property
    def state(self) -> Path:
        return self.root / ".kchain-inbox"

    @property
    def _leaving(self) -> Path:
        # In the inbox itself: that may be another file system, where nothing can be moved to at once.
        return self.inbox / ".kchain-leaving"

    def prepare(self) -> None:
        """Have every folder there, and see that it can be written to before hours are spent.

        Raises:
            OSError: one cannot.
        """
        for folder in (self.state, self.inbox, self.adapters, self.archive, self.rejected):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass

    def withdraw(self, name: str, sha256: str) -> None:
        """Take a file out of the inbox whose content is kept elsewhere; one with other content stays.

        It is moved first and then read: what somebody writes under its name meanwhile is not touched.
        """
        self._leaving.mkdir(exist_ok=True)
        leaving = self._leaving / name
        with suppress(FileNotFoundError):
            (self.inbox / name).rename(leaving)
            if leaving.is_file() and not leaving.is_symlink() and hash_file(leaving) == sha256:
                leaving.unlink()
        self.restore()

    def restore(self) -> None:
        """Put back what a withdrawal should not have taken away, or had when it was cut short."""
        if not self._leaving.is_dir():
            return
        for left in sorted(self._leaving.iterdir()):
            if left.is_file() and not left.is_symlink():
                put(left, self.inbox, left.name, hash_file(left))
                left.unlink()
            elif not os.path.lexists(self.inbox / left.name):
                left.rename(self.inbox / left.name)
        with suppress(OSError):
            self._leaving.rmdir()


def put(source: Path, folder: Path, name: str, sha256: str) -> Path:
    """A copy of a file in a folder under its name, or with its hash in the name where another file has that.

    Done again it changes nothing.

    Returns:
        where it is.
    """
    target = _free(folder, name, sha256)
    if not target.exists():
        partial = folder / f".{SHORT_HASH}-{sha256[:SHORT_HASH]}.partial"
        shutil.copy2(source, partial)
        put_in_place(partial, target)
    return target


def put_reason(beside: Path, text: str) -> Path:
    """A text beside a file: why it is there."""
    reason = beside.with_name(f"{beside.name}.reason.txt")
    write_text(reason, text)
    return reason


def land(files: list[Path], adapters: Path, stem: str, sha256: str, version: int | None) -> Path:
    """A copy of an adapter's files as `<stem>-<hash>`; one of the same weights for the same file is left as it is.

    Args:
        files: its weights first.
        sha256: of the file that it was trained on; the name has the first ten digits of it.
        version: of the kernel, for a name of its own beside an earlier adapter of the same file.
    """
    tail = f"-{sha256[:SHORT_HASH]}"
    weights = hash_file(files[0])
    for there in sorted(adapters.iterdir()):
        same = tail in there.name and (there / files[0].name).is_file()
        if same and hash_file(there / files[0].name) == weights:
            return there
    first = f"{_cut(stem, '')}{tail}"
    others = (f"{first}-v{version}-{number}" for number in itertools.count(2))
    names = itertools.chain([first, f"{first}-v{version}"], others)
    target = next(adapters / each for each in names if not (adapters / each).exists())
    partial = Path(tempfile.mkdtemp(prefix=".landing-", dir=adapters))
    for file in files:
        shutil.copyfile(file, partial / file.name)
        with (partial / file.name).open("rb+") as copied:
            os.fsync(copied.fileno())
    partial.chmod(0o755)
    put_in_place(partial, target)
    return target


def clear(folder: Path) -> None:
    """Remove what copies that were cut short have left."""
    for left in (*folder.glob(".landing-*"), *folder.glob(f".{SHORT_HASH}-*.partial")):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


class InboxJob(BaseModel):
    """One file on its way to an adapter.

    Attributes:
        folder: where its copy lies.
        name: of the file, as it was dropped.
        sha256: of its content.
        phase, target: what it is trained with, and where.
        since: kernel versions up to this one belong to earlier runs; None: nobody has looked yet.
        again: an earlier run of the same content failed, or was of another phase file: it does not count.
        already: an earlier run of the same content counts.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    folder: Path = Field(exclude=True)
    name: str
    sha256: str
    phase: str
    target: str
    since: int | None = None
    again: bool = False
    already: bool = False

    @property
    def dropped(self) -> Path:
        """The copy of the file."""
        return self.folder / _DROPPED / self.name

    @property
    def short_hash(self) -> str:
        return self.sha256[:SHORT_HASH]

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    def looked(self, since: int, *, again: bool, already: bool) -> InboxJob:
        """The job with what was found of earlier runs; written down before anything is pushed."""
        job = self.model_copy(update={"since": since, "again": again, "already": already})
        write_json(self.folder / _FILE, job.model_dump())
        return job


def take(box: Box, name: str, phase: str, target: str) -> InboxJob | None:
    """Make a file of the inbox the job; None where it changed while it was copied, or is gone."""
    partial = begin_folder(box.state / _JOB)
    (partial / _DROPPED).mkdir()
    copy = partial / _DROPPED / name
    try:
        with (box.inbox / name).open("rb") as source, copy.open("wb") as target_file:
            before = os.fstat(source.fileno())
            shutil.copyfileobj(source, target_file, 2**20)
            target_file.flush()
            os.fsync(target_file.fileno())
            after = os.fstat(source.fileno())
    except FileNotFoundError:
        return None
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        return None
    os.utime(copy, ns=(before.st_mtime_ns, before.st_mtime_ns))
    job = InboxJob(folder=box.state / _JOB, name=name, sha256=hash_file(copy), phase=phase, target=target)
    write_json(partial / _FILE, job.model_dump())
    rename_folder(partial, job.folder)
    return job


def unfinished_job(box: Box) -> InboxJob | None:
    """The job that an earlier kchain left.

    Raises:
        InputError: it cannot be read.
    """
    folder = box.state / _JOB
    if not folder.is_dir():
        return None
    try:
        return InboxJob.model_validate({**_OBJECT.validate_json((folder / _FILE).read_bytes()), "folder": folder})
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / _FILE}: cannot be read: {error}",
            f"the dropped file is in {folder / _DROPPED}; see that it is in the inbox, then remove {folder}",
        ) from None


def forget(job: InboxJob) -> None:
    """Remove a job that is done."""
    done = job.folder.with_name("done")
    shutil.rmtree(done, ignore_errors=True)
    job.folder.rename(done)
    shutil.rmtree(done, ignore_errors=True)


def _free(folder: Path, name: str, sha256: str) -> Path:
    """The first name that is free, or that the very same content has already."""
    suffix = Path(name).suffix
    stem = name.removesuffix(suffix)
    number = 0
    while True:
        tail = "" if number == 0 else f"-{sha256[:SHORT_HASH]}" if number == 1 else f"-{sha256[:SHORT_HASH]}-{number}"
        target = folder / f"{_cut(stem, suffix)}{tail}{suffix}"
        if not os.path.lexists(target) or (target.is_file() and hash_file(target) == sha256):
            return target
        number += 1


def _cut(stem: str, suffix: str) -> str:
    """A stem short enough to be a name with something around it."""
    while len(os.fsencode(stem + suffix)) > _NAME_BYTES:
        stem = stem[:-1]
    return stem
