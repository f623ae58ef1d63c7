"""Copies of a target's data sets on this machine, for whoever wants to look at the examples in them."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from kchain.errors import InputError
from kchain.orchestrator.client import Client
from kchain.runtime.readers import READERS, kind
from kchain.units import size

COPIES = Path(".kchain") / "copies"


def copy_dataset(client: Client, ref: str, file: str | None, root: Path, tell: Callable[[str], None]) -> Path:
    """The folder with the files of a data set that a source may read; what is there already is not fetched again.

    Args:
        file: name or pattern with * of the files; None: all that can be read.
        root: of the project.

    Raises:
        InputError: the target has no such data set, or it has no such file.
        Unreachable: the target does not answer.
    """
    from kchain.orchestrator.fetch import safe_join
    from kchain.orchestrator.mapping import Absent

    try:
        version, there = client.dataset_version(ref), client.dataset_files(ref)
    except Absent as error:
        raise InputError(error.message, error.hint) from None
    wanted = [each for each in there if _is_wanted(each.name, file)]
    if not wanted:
        names = ", ".join(each.name for each in there[:20]) or "none"
        raise InputError(f"data set {ref} has no file {file or 'that can be read'}", f"it has {names}")
    folder = root / COPIES / ref / str(version)
    for each in wanted:
        place = safe_join(folder, each.name)
        if not place.is_file():
            tell(f"fetching {each.name} of {ref}, {size(each.bytes)}")
            client.dataset_download(ref, each.name, place)
    return folder


def _is_wanted(name: str, file: str | None) -> bool:
    if file is None:
        return kind(Path(name)) in READERS
    return name == file or ("*" in file and fnmatch(name, file))
