"""The checkpoint that a session left: whole, and the one that the session meant; or why a session found none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.errors import AdapterRefused
from kchain.orchestrator.journal.state import Ancestor, Version
from kchain.orchestrator.judging.adapter import read_object
from kchain.runtime.contract import CHECKPOINT, MANIFEST, NO_CHECKPOINT, STOPS, UNFIT_CHECKPOINT
from kchain.runtime.files import hash_file

_CURE = "it was damaged on the way, or in the session: from the beginning: kchain push PHASE --again"


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
class Missing:
    """A session that ended at once, since the checkpoint it was to go on from was not mounted."""

    reason: str


def missing(result: Mapping[str, Any], version: Version) -> Missing | None:
    """Whether a session failed for want of its checkpoint; its preflight says so before anything else is done."""
    reason = str(result.get("reason") or "")
    if version.continues is None or not reason.startswith(NO_CHECKPOINT) or UNFIT_CHECKPOINT in reason:
        return None
    return Missing(reason.removeprefix(NO_CHECKPOINT))


def paused(result: Mapping[str, Any], version: Version, folder: Path) -> Paused | None:
    """What a session left to go on from; None where it left nothing, or ran to its end.

    One that was killed while it judged what it had saved has left as much as any other.

    Raises:
        AdapterRefused: the checkpoint is not whole, or is another session's.
    """
    said = result.get("checkpoint")
    if result.get("status") == "complete" or result.get("stopped") not in STOPS or not isinstance(said, dict):
        return None
    _compare("session", result.get("session"), version.session)
    _compare("lineage", lineage_of(result), list(version.lineage))
    place = folder / str(said.get("folder"))
    _compare("folder", said.get("folder"), CHECKPOINT)
    manifest = _manifest(place, said)
    size = sum(file.stat().st_size for file in place.iterdir())
    return Paused(result["stopped"], said["sha256"], size, manifest["step"], manifest["steps"], seconds_of(result))


def is_whole(folder: Path, sha256: str) -> bool:
    """Whether the checkpoint in a folder is the one with that manifest; its other files are not read."""
    return (folder / MANIFEST).is_file() and _sha256(folder / MANIFEST) == sha256


def seconds_of(result: Mapping[str, Any]) -> float:
    """The run time that a session recorded; 0 where it recorded none."""
    seconds = result.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0


def _manifest(place: Path, said: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest, after every file that it names was hashed."""
    path = place / MANIFEST
    manifest = read_object(path)
    _compare(f"{path}: sha256", _sha256(path), said.get("sha256"))
    files = manifest.get("files")
    there = {file.name for file in place.iterdir()} - {MANIFEST}
    if not isinstance(files, dict) or set(files) != there:
        raise AdapterRefused(f"{path}: names other files than those beside it", _CURE)
    for name, sha256 in files.items():
        _compare(f"{place / name}: sha256", _sha256(place / name), sha256)
    for key in ("step", "steps"):
        if type(manifest.get(key)) is not int:
            raise AdapterRefused(f"{path}: {key} is {manifest.get(key)!r}, due is a number", _CURE)
    return manifest


def _compare(what: str, found: Any, due: Any) -> None:
    if found != due:
        raise AdapterRefused(f"the checkpoint's {what} is {found!r}, due is {due!r}", _CURE)


def lineage_of(result: Mapping[str, Any]) -> list[Ancestor]:
    """The adapters that a session recorded, root first."""
    entries = result.get("lineage")
    entries = entries if isinstance(entries, list) else []
    return [Ancestor(str(each.get("phase")), str(each.get("sha256"))) for each in entries if isinstance(each, dict)]


def _sha256(path: Path) -> str:
    try:
        return hash_file(path)
    except OSError as error:
        raise AdapterRefused(f"{path}: cannot be read: {error.strerror or error}", _CURE) from None
