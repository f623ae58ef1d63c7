"""The file in work: a copy of it, and what was found out before its run began. On the disk, so no kill ends it.

At most one, in `.kchain-inbox/job/`. What the run has reached stands in the chain's journal; the job says only whose
run it is, and which runs before it do not count.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kchain.errors import InputError, KchainError
from kchain.inbox.box import SHORT_HASH, Box
from kchain.orchestrator.json_file import read_object
from kchain.runtime.files import begin_folder, hash_file, rename_folder, write_json

_JOB = "job"
_FILE = "job.json"
_DROPPED = "dropped"


@dataclass(frozen=True)
class Job:
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

    folder: Path
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

    def looked(self, since: int, *, again: bool, already: bool) -> Job:
        """The job with what was found of earlier runs; written down before anything is pushed."""
        job = replace(self, since=since, again=again, already=already)
        write_json(self.folder / _FILE, _as_json(job))
        return job


def take(box: Box, name: str, phase: str, target: str) -> Job | None:
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
    job = Job(box.state / _JOB, name, hash_file(copy), phase, target)
    write_json(partial / _FILE, _as_json(job))
    rename_folder(partial, job.folder)
    return job


def unfinished_job(box: Box) -> Job | None:
    """The job that an earlier kchain left.

    Raises:
        InputError: it cannot be read.
    """
    folder = box.state / _JOB
    if not folder.is_dir():
        return None
    try:
        return Job(folder, **read_object(folder / _FILE))
    except (TypeError, KchainError) as error:
        raise _damaged(folder, error) from None


def forget(job: Job) -> None:
    """The job is done: nothing of it is left."""
    done = job.folder.with_name("done")
    shutil.rmtree(done, ignore_errors=True)
    job.folder.rename(done)
    shutil.rmtree(done, ignore_errors=True)


def _as_json(job: Job) -> dict[str, Any]:
    return {key: value for key, value in asdict(job).items() if key != "folder"}


def _damaged(folder: Path, error: Exception) -> InputError:
    return InputError(
        f"{folder}: the file in work cannot be told: {error}",
        f"its copy is in {folder / _DROPPED}; see that it is in the inbox, then remove {folder}",
    )
