"""The checkpoint that a session left: whole, and the one that the session meant; or why a session found none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import StrictInt

from kchain.errors import AdapterRefused
from kchain.orchestrator.journal.state import Version
from kchain.orchestrator.judging.result import FromSession, ResultFile, parse, read_object
from kchain.runtime.contract import CHECKPOINT, MANIFEST, NO_CHECKPOINT, STOPS, UNFIT_CHECKPOINT
from kchain.runtime.files import hash_file

_CURE = "it was damaged on the way, or in the session: from the beginning: kchain push PHASE --again"


class Manifest(FromSession):
    """`manifest.json`: the optimizer steps that are done, those of the whole training, and its files by sha256."""

    step: StrictInt
    steps: StrictInt
    files: dict[str, str]


@dataclass(frozen=True)
class Paused:
    """A session that stopped before the training was done, with a sound checkpoint.

    Attributes:
        stopped: why: "time" (its time limit) or "slow" (steps took much longer than planned).
        sha256: of the checkpoint's manifest.json.
        bytes: of all its files.
        step, steps: optimizer steps that are done, and those of the whole training.
        seconds: run time of this session.
    """

    stopped: str
    sha256: str
    bytes: int
    step: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class NoCheckpoint:
    """A session that ended at once, since the checkpoint it was to resume from was not mounted."""

    reason: str


def no_checkpoint(result: ResultFile, version: Version) -> NoCheckpoint | None:
    """Whether a session failed for want of its checkpoint; its preflight says so before anything else is done."""
    reason = result.reason
    if version.continues is None or not reason.startswith(NO_CHECKPOINT) or UNFIT_CHECKPOINT in reason:
        return None
    return NoCheckpoint(reason.removeprefix(NO_CHECKPOINT))


def paused(result: ResultFile, version: Version, folder: Path) -> Paused | None:
    """What a session left to resume from; None where it left nothing, or ran to its end.

    One that was killed while it judged what it had saved has left as much as any other.

    Raises:
        AdapterRefused: the checkpoint is not whole, or is another session's.
    """
    told = result.checkpoint
    if result.status == "complete" or result.stopped not in STOPS or told is None:
        return None
    _compare("session", result.session, version.session)
    _compare("lineage", list(result.lineage or ()), list(version.lineage))
    _compare("folder", told.folder, CHECKPOINT)
    place = folder / CHECKPOINT
    path = place / MANIFEST
    content = read_object(path)
    sha256 = _sha256(path)
    _compare(f"{path}: sha256", sha256, told.sha256)
    manifest = parse(Manifest, content, path)
    if manifest.files.keys() != {file.name for file in place.iterdir()} - {MANIFEST}:
        raise AdapterRefused(f"{path}: names other files than those beside it", _CURE)
    for name, recorded in manifest.files.items():
        _compare(f"{place / name}: sha256", _sha256(place / name), recorded)
    size = sum(file.stat().st_size for file in place.iterdir())
    return Paused(result.stopped, sha256, size, manifest.step, manifest.steps, result.seconds or 0.0)


def is_whole(folder: Path, sha256: str) -> bool:
    """Whether the checkpoint in a folder is the one with that manifest; its other files are not read."""
    return (folder / MANIFEST).is_file() and _sha256(folder / MANIFEST) == sha256


def _compare(what: str, found: Any, wanted: Any) -> None:
    if found != wanted:
        raise AdapterRefused(f"the checkpoint's {what} is {found!r}, not {wanted!r}", _CURE)


def _sha256(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise AdapterRefused(f"{path}: cannot be read: {error.strerror or error}", _CURE) from None
