"""What a signed address of a data set or model version leads to: one file, or all of them in one archive."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from kchain.server import files
from kchain.server.context import Context
from kchain.server.publish import dataset_folder, model_folder
from kchain.server.wire import ApiError


def file(context: Context, kind: str, path: str) -> Path:
    """The file behind a signed address.

    Args:
        kind: "dataset" or "model" for one file, "dataset-zip" or "model-tar" for all files of a version.
        path: "owner/slug/number/name", for a model "owner/model/framework/variation/number/name".

    Raises:
        ApiError: 404, when it is not there (any more).
    """
    is_model = kind.startswith("model")
    parts = path.split("/", 5 if is_model else 3)
    folder = (model_folder if is_model else dataset_folder)(context.root, *parts[:-1])
    if kind in _PACKERS:
        return _packed(context, folder, kind)
    found = dict(files.walk(folder)).get(parts[-1])
    if found is None:
        raise ApiError(404, f"There is no file {parts[-1]!r}.")
    return found


def forget(context: Context, folder: Path) -> None:
    """Remove a version's files and its archive."""
    for kind in _PACKERS:
        _archive(context, folder, kind).unlink(missing_ok=True)
    files.remove_tree(folder)


def _packed(context: Context, folder: Path, kind: str) -> Path:
    """An archive of a version's files, made at the first download; its bytes and time then stay: it can be resumed."""
    archive = _archive(context, folder, kind)
    if archive.exists():
        return archive
    if not folder.is_dir():
        raise ApiError(404, "There is no such version.")
    archive.parent.mkdir(exist_ok=True)
    with NamedTemporaryFile(dir=archive.parent, delete=False) as temporary:
        _PACKERS[kind][1](temporary, folder)
    return Path(temporary.name).replace(archive)


def _archive(context: Context, folder: Path, kind: str) -> Path:
    """Where the archive of a version lies; no owner or slug has a "+", so no two versions share a name."""
    name = "+".join(folder.relative_to(context.root.resolve()).parts)
    return context.root / "archives" / (name + _PACKERS[kind][0])


def _zip(to: IO[bytes], folder: Path) -> None:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as packed:
        for name, real in files.walk(folder):
            packed.write(real, name)


def _tar(to: IO[bytes], folder: Path) -> None:
    # Weights do not compress; the client wants gzip nevertheless.
    with tarfile.open(fileobj=to, mode="w:gz", compresslevel=1) as packed:
        for name, real in files.walk(folder):
            packed.add(real, name)


_PACKERS: dict[str, tuple[str, Callable[[IO[bytes], Path], None]]] = {
    "dataset-zip": (".zip", _zip),
    "model-tar": (".tar.gz", _tar),
}
