"""The outputs of a kernel version, all of them or none: pulled beside their folder, renamed into place at the end.

Of an export's models only the words are fetched: gigabytes are fetched when they are asked for.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from kchain import files
from kchain.client.answers import Outputs
from kchain.client.client import Client
from kchain.client.fetch import download, place_of
from kchain.client.log import lines_of
from kchain.client.refusals import Absent, Declined
from kchain.errors import InputError
from kchain.runtime.contract import EXPORT, EXPORT_MANIFEST, LOG
from kchain.runtime.readers import READERS, kind
from kchain.units import size

# Copies of a target's data sets on this machine, for whoever wants to look at the examples in them.
COPIES = Path(".kchain") / "copies"
# Folder of an export's models in the output, and what in it is fetched without being asked for.
MODELS = f"{EXPORT}/"
WORDS = ("README.md", EXPORT_MANIFEST)


def pull(client: Client, ref: str, version: int, to: Path, *, everything: bool = False) -> Path:
    """Fetch what a finished session left into the folder `to`; a folder that is there is complete and stays.

    A pull that was cut, or killed, is resumed.

    Args:
        everything: an export's models, too; without that they stay on the target.

    Raises:
        Unreachable: the target or its store does not give everything.
        InputError: this machine cannot store it.
    """
    if to.is_dir():
        return to
    part = to.with_name(f".{to.name}.part")
    try:
        outputs = _fetch_all(client, ref, version, part, everything)
    except Declined:
        # Signed addresses end; a new list has new ones, and what is here already is not fetched again.
        outputs = _fetch_all(client, ref, version, part, everything)
    try:
        files.write(part / LOG, "".join(f"{line.text}\n" for line in lines_of(outputs.log)))
        files.put_in_place(part, to)
        part.with_name(f"{part.name}.of").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{to}: cannot be written: {error.strerror or error}",
            "free disk space, or check the permissions of the folder",
        ) from error
    return to


def stays(name: str) -> bool:
    """Whether a file of the output is left on the target unless everything is asked for."""
    return name.startswith(MODELS) and name.rpartition("/")[2] not in WORDS


def _fetch_all(client: Client, ref: str, version: int, part: Path, everything: bool) -> Outputs:
    outputs = client.outputs(ref, version)
    sizes = client.sizes(ref, version)
    wanted = [file for file in outputs.files if everything or not stays(file.name)]
    # An output may be called what kchain calls the log.
    places = {file: place_of(f"{file.name}.output" if file.name == LOG else file.name, part) for file in wanted}
    # What tells one run's outputs from another's with the same number, such as after a server was set up anew.
    seen = [[[file.name, sizes.get(file.name)] for file in outputs.files], outputs.log]
    try:
        _begin(part, hashlib.sha256(json.dumps(seen).encode()).hexdigest())
    except OSError as error:
        raise InputError(
            f"{part}: cannot be written: {error.strerror or error}", "check the permissions of the folder"
        ) from error
    present = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
    missing, free = sum(sizes.get(file.name, 0) for file in wanted) - present, shutil.disk_usage(part).free
    if missing > free:
        raise InputError(f"{part.parent}: the outputs need {missing} bytes, {free} are free", "free disk space")
    for file, place in places.items():
        if not place.exists():
            download(file.url, place, sizes.get(file.name), client.transport.patience)
    return outputs


def _begin(part: Path, fingerprint: str) -> None:
    """Start, or go on where an earlier pull of the same outputs ended."""
    note = part.with_name(f"{part.name}.of")
    if part.exists() and (not note.exists() or note.read_text(encoding="utf-8") != fingerprint):
        shutil.rmtree(part)
    part.mkdir(parents=True, exist_ok=True)
    note.write_text(fingerprint, encoding="utf-8")


def copy_dataset(client: Client, ref: str, file: str | None, root: Path, tell: Callable[[str], None]) -> Path:
    """The folder with the files of a data set that a source may read; what is there already is not fetched again.

    Args:
        file: name or pattern with * of the files; None: all that can be read.
        root: of the project.

    Raises:
        InputError: the target has no such data set, or it has no such file.
        Unreachable: the target does not answer.
    """
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
        place = place_of(each.name, folder)
        if not place.is_file():
            tell(f"fetching {each.name} of {ref}, {size(each.bytes)}")
            client.dataset_download(ref, each.name, place)
    return folder


def _is_wanted(name: str, file: str | None) -> bool:
    if file is None:
        return kind(Path(name)) in READERS
    return name == file or ("*" in file and fnmatch(name, file))
