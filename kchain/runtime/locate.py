"""The files of a source: by name, by pattern, by split, or the only readable one there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .failure import Stop
from .paths import Paths
from .readers import READERS, kind

LISTED = 20  # files of a data set that a message names


def source_files(paths: Paths, source: dict[str, Any]) -> list[Path]:
    """The files of a source that is no data set of Hugging Face, in the order of their names.

    Raises:
        Stop: the data set is not mounted, or there is no such file.
    """
    if source["kind"] == "path":  # of this machine: `kchain data check`
        place = Path(source["place"])
        return [place] if place.is_file() else find_files(place, source["file"], source["split"])
    if source["kind"] == "project":
        return find_files(paths.scratch / "project", source["file"], None)
    return find_files(paths.mount("dataset", source["dataset"]), source["file"], source["split"])


def find_files(folder: Path, name: str | None, split: str | None) -> list[Path]:
    """The file of that name, or those that a pattern with * fits; without a name those of the split, or the only one.

    Raises:
        Stop: there is no such file, or without a name and a split none or several; says which there are.
    """
    if name is not None and (folder / name).is_file():
        return [folder / name]
    readable = _readable(folder)
    if name is not None:
        found = sorted(folder.glob(name)) if "*" in name else []
    elif split is not None:
        found = [path for path in readable if split.lower() in _words(path.relative_to(folder))] or readable[:1] * (
            len(readable) == 1
        )
    else:
        found = readable if len(readable) == 1 else []
    found = [path for path in found if path.is_file()]
    if not found:
        raise _absent(folder, name, split, readable)
    return found


def _words(path: Path) -> list[str]:
    """The words of a path: data/train-00000-of-00002.parquet has data, train and some more."""
    return re.split(r"[^a-z0-9]+", str(path).lower()) + [path.name.lower().split(".")[0]]


def _absent(folder: Path, name: str | None, split: str | None, readable: list[Path]) -> Stop:
    there = [str(path.relative_to(folder)) for path in readable]
    there = there or (sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [])
    more = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
    listed = f"there is {', '.join(there[:LISTED]) or 'nothing'}{more}"
    if name is not None:
        reason = f"there is no file {folder / name}; {listed}"
        return Stop(reason, "correct the source's file; upper and lower case count")
    if readable and split is not None:
        return Stop(
            f"no file of {folder} is named after the split {split}; {listed}", "set file or split in the source"
        )
    found = "several files that can be read" if readable else f"no file that can be read ({', '.join(READERS)})"
    return Stop(
        f"the source names no file, and {folder} holds {found}: {listed}", "set file in the source to one of them"
    )


def _readable(folder: Path) -> list[Path]:
    """What READERS can read, at most one level deep: Kaggle's mounts are slow to walk. Hidden files do not count."""
    paths = (path for pattern in ("*", "*/*") for path in folder.glob(pattern))
    return sorted(path for path in paths if kind(path) in READERS and path.name[0] != "." and path.is_file())
