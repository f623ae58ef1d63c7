"""Folders of files: hard-linked mounts, walks over outputs, fingerprints, archives that cannot escape."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from kchain.files import safe_join

_READ_ONLY_FILE = 0o444
_READ_ONLY_FOLDER = 0o555
_CHUNK = 1 << 20


def walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Every file below `folder` as (name with '/', real path), sorted.

    A link counts as the file it points to when that lies inside `folder`; a link that leaves it, points to a folder or
    to nothing is ignored, and so is whatever is not a plain file.
    """
    base = folder.resolve()
    found = []
    for parent, folders, names in os.walk(base):
        folders.sort()
        for name in names:
            path = Path(parent, name)
            real = path.resolve()
            if real.is_relative_to(base) and real.is_file():
                found.append((path.relative_to(base).as_posix(), real))
    yield from sorted(found)


def link_tree(source: Path, target: Path) -> None:
    """Make `target` a read-only image of the files below `source`, by hard links: no bytes are copied.

    Both must lie on one file system, which they do below one server root.
    """
    target.mkdir(parents=True, exist_ok=True)
    for name, real in walk(source):
        path = safe_join(target, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(real, path)
    for parent, _, _ in os.walk(target):
        os.chmod(parent, _READ_ONLY_FOLDER)


def copy_tree(source: Path, root: Path) -> Path:
    """Copy the files below `source` into a new temporary folder in `root`, for `settle` to put in its place."""
    temporary = Path(tempfile.mkdtemp(dir=root, prefix=".new-"))
    try:
        for name, real in walk(source):
            path = safe_join(temporary, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(real, path)
    except BaseException:
        remove_tree(temporary)
        raise
    return temporary


def settle(temporary: Path, target: Path) -> None:
    """Make a finished folder read-only file by file and give it its name, replacing a leftover of that name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    protect(temporary)
    os.chmod(temporary, 0o755)
    remove_tree(target)
    os.replace(temporary, target)


def protect(folder: Path) -> None:
    """Make every file below `folder` read-only: its bytes may be mounted elsewhere by hard link."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                os.chmod(path, _READ_ONLY_FILE)


def remove_tree(folder: Path) -> None:
    """Remove a folder, its read-only parts included; nothing to do where there is none."""
    if folder.is_symlink():
        folder.unlink()
        return
    for parent, _, _ in os.walk(folder):
        os.chmod(parent, stat.S_IRWXU)
    if folder.exists():
        shutil.rmtree(folder)


def fingerprint(folder: Path) -> tuple[str, int]:
    """(sha256 over names and contents of the files below `folder`, their bytes together)."""
    whole, size = hashlib.sha256(), 0
    for name, real in walk(folder):
        with real.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{name}\0{digest}\n".encode())
        size += real.stat().st_size
    return whole.hexdigest(), size


def is_archive(name: str) -> bool:
    """Whether the server unpacks an uploaded file of this name."""
    return name.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz"))


def unpack(archive: Path, name: str, folder: Path) -> None:
    """Unpack an uploaded `dir.zip` or `dir.tar` into `folder/dir`, as Kaggle does with data set uploads.

    Archives in it are unpacked where they are (those inside them stay). Links and special files are left out.

    Raises:
        UnsafeName: an entry would leave the folder.
        zipfile.BadZipFile, tarfile.TarError, OSError: it is damaged.
    """
    target = _extract(archive, name, folder)
    for inner, path in list(walk(target)):
        if is_archive(inner):
            _extract(path, path.name, path.parent)
            path.unlink()


def _extract(archive: Path, name: str, folder: Path) -> Path:
    """The folder that `archive`, called `name`, was unpacked into."""
    stem = name[: name.lower().rindex(".zip" if name.lower().endswith(".zip") else ".t")]
    target = safe_join(folder, stem)
    target.mkdir(parents=True, exist_ok=True)
    if name.lower().endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                if not entry.is_dir() and not stat.S_ISLNK(entry.external_attr >> 16):
                    with packed.open(entry) as stream:
                        _store(stream, safe_join(target, entry.filename))
        return target
    with tarfile.open(archive) as tape:
        for member in tape:
            if member.isfile() and (extracted := tape.extractfile(member)) is not None:
                with extracted:
                    _store(extracted, safe_join(target, member.name))
    return target


def _store(stream: IO[bytes], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(stream, file, _CHUNK)
