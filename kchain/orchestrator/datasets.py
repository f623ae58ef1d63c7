"""Data sets: looking at them, fetching from them, and making a private one of an adapter folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kchain.errors import InputError, Unreachable
from kchain.orchestrator.answers import DatasetFile
from kchain.orchestrator.client import items_of, split_ref
from kchain.orchestrator.fetch import download
from kchain.orchestrator.mapping import Absent
from kchain.orchestrator.pages import all_pages
from kchain.orchestrator.refusals import refusal
from kchain.orchestrator.transport import Transport
from kchain.orchestrator.uploads import upload


def dataset_status(transport: Transport, ref: str) -> str | None:
    """The state of a data set, or None where the target says that there is none."""
    try:
        fields = _ask(transport, f"the status of data set {ref}", "GetDatasetStatus", ref)
    except Absent:
        return None
    word = fields.get("status", "NOT_YET_PERSISTED")
    if not isinstance(word, str) or not word:
        raise Unreachable(f"the status of data set {ref} is {word!r}", "repeat the command")
    return word.upper()


def dataset_version(transport: Transport, ref: str) -> int:
    """The current version number of a data set."""
    number = _ask(transport, f"data set {ref}", "GetDataset", ref).get("currentVersionNumber")
    if type(number) is not int or number < 1:
        raise Unreachable(f"data set {ref} has no version number", "repeat the command")
    return number


def dataset_files(transport: Transport, ref: str) -> tuple[DatasetFile, ...]:
    """All files of a data set."""
    doing = f"the files of data set {ref}"
    pages = all_pages(
        doing, lambda token: _ask(transport, doing, "ListDatasetFiles", ref, page_token=token, page_size=100)
    )
    return tuple(_file(item, doing) for page in pages for item in items_of(page, "datasetFiles"))


def _file(item: dict[str, Any], doing: str) -> DatasetFile:
    name, size = item.get("name"), item.get("totalBytes", 0)
    if not isinstance(name, str) or not name or type(size) is not int:
        raise Unreachable(f"{doing}: a file without a name or a size", "repeat the command")
    return DatasetFile(name, size)


def dataset_download(transport: Transport, ref: str, name: str, to: Path) -> Path:
    """Fetch one file, uncompressed, to the path `to`; its size is compared with the list where that has it.

    Raises:
        InputError: the data set has no such file.
    """
    sizes = {file.name: file.bytes for file in dataset_files(transport, ref)}
    if name not in sizes:
        raise InputError(f"data set {ref} has no file {name!r}", f"it has {', '.join(sorted(sizes)[:20]) or 'none'}")
    owner, slug = split_ref(ref)
    url = transport.location(
        f"{name} of data set {ref}",
        "datasets",
        "DownloadDataset",
        owner_slug=owner,
        dataset_slug=slug,
        file_name=name,
        raw=True,
    )
    return download(url, to, sizes[name] or None, transport.patience)


def dataset_create(transport: Transport, folder: Path, ref: str, title: str) -> None:
    """Make a private data set of the files that lie directly in `folder`. It is READY some time later.

    Args:
        transport: the target.
        folder: an adapter's or a checkpoint's; folders inside it are not taken along.
        ref: owner/slug, the slug with 6 to 50 letters.
        title: 6 to 50 letters.

    Raises:
        InputError: the folder is empty, the names do not fit, or the data set exists.
        Ambiguous: it may have been made.
    """
    owner, slug = split_ref(ref)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    _check_new(transport, folder, files, ref, slug, title)
    tokens = [upload(transport, path, "DATASET") for path in files]
    doing = f"making data set {ref}"
    answer = transport.act(
        doing,
        "datasets",
        "CreateDataset",
        owner_slug=owner,
        slug=slug,
        title=title,
        license_name="unknown",
        is_private=True,
        files=[new_file(token) for token in tokens],
    )
    if answer.get("error"):
        raise refusal(str(answer["error"]), doing)


def _check_new(transport: Transport, folder: Path, files: list[Path], ref: str, slug: str, title: str) -> None:
    if not files:
        raise InputError(f"{folder}: no file to upload", "name the folder that holds adapter_model.safetensors")
    if not 6 <= len(slug) <= 50 or not 6 <= len(title) <= 50:
        raise InputError(f"data set {ref}, {title!r}: Kaggle wants 6 to 50 letters in the slug and in the title")
    status = dataset_status(transport, ref)
    if status is not None and status != "DELETED":
        raise InputError(f"data set {ref} exists already ({status})", f"take it over with: --dataset {ref}")


def new_file(token: str) -> Any:
    """An uploaded file as a request for a data set or model version names it."""
    from kagglesdk.datasets.types.dataset_api_service import ApiDatasetNewFile

    file = ApiDatasetNewFile()
    file.token = token
    return file


def _ask(transport: Transport, doing: str, method: str, ref: str, **fields: Any) -> dict[str, Any]:
    owner, slug = split_ref(ref)
    return transport.read(doing, "datasets", method, owner_slug=owner, dataset_slug=slug, **fields)
