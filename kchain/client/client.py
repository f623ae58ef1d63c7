"""One client for every target: what kchain asks, and what the answers mean.

Importing this module loads neither kaggle nor kagglesdk nor requests; `connect` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kchain.client.answers import NEVER_RUN, DatasetFile, Kernel, LogLine, OutputFile, Outputs, Pushed, Quota, Status
from kchain.client.target import Target
from kchain.errors import InputError, Unreachable

if TYPE_CHECKING:
    from kchain.client.transport import Patience, Transport


# Lists that come in pages.

# 20 GB of output in files of some kilobytes; an endless list of new tokens ends here.
_MOST_PAGES = 10_000


def all_pages(doing: str, page_at: Callable[[str], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every page of a list.

    Args:
        doing: what is listed, for errors.
        page_at: the page of a token; "" is the first.

    Raises:
        Unreachable: a token comes twice, or the pages do not end.
    """
    token, seen = "", {""}
    for _ in range(_MOST_PAGES):
        page = page_at(token)
        yield page
        following = page.get("nextPageToken") or ""
        if not following:
            return
        token = str(following)
        if token in seen:
            break
        seen.add(token)
    raise Unreachable(f"the target lists {doing} without end", "repeat the command")


__all__ = [
    "Client",
    "DatasetFile",
    "Kernel",
    "LogLine",
    "OutputFile",
    "Outputs",
    "Pushed",
    "Quota",
    "Status",
    "connect",
]

# Kaggle refuses more than 200 (kaggle-cli 2.2.5); listing very large outputs has met 429.
_PAGE = 100
_STATUS_PREFIX = "KERNEL_WORKER_STATUS_"


def connect(target: Target, patience: Patience | None = None) -> Client:
    """A client for a target, with its credentials; starts this project's local server where that is the target.

    Raises:
        CredentialsError: none, not accepted, or another account's than the chain's owner.
        Unreachable: the target does not answer, or the local server does not start.
    """
    from kchain.client.connect import open_transport

    return Client(target, open_transport(target, patience))


class Client:
    """Calls of Kaggle's API. Reads are repeated patiently; nothing with an effect ever is. Only kchain errors leave.

    Attributes:
        target: who answers.
        owner: the user that acts.
    """

    def __init__(self, target: Target, transport: Transport) -> None:
        self.target = target
        self.owner = target.owner
        self.transport = transport

    def push(self, folder: Path, timeout: int) -> Pushed:
        """Push the bundle in `folder`, with a session limit of `timeout` seconds; raises what `save_kernel` does."""
        from kchain.client.save import save_kernel

        return save_kernel(self.transport, self.owner, folder, timeout)

    def kernel(self, ref: str, version: int | None = None) -> Kernel | None:
        """The newest version of a kernel, or the one asked for, with its source.

        None only where the target itself says that there is none: 403 and 404 both mean that, and, for a minute after
        the first push, also that it is not visible yet.

        Raises:
            Unreachable: no clear answer; nothing is known about the kernel then.
        """
        from kchain.client.translate import Absent

        try:
            fields = self._kernels(f"the source of {ref}", "GetKernel", ref, version)
        except Absent:
            return None
        metadata, blob = fields.get("metadata"), fields.get("blob")
        number = metadata.get("currentVersionNumber") if isinstance(metadata, dict) else None
        source = blob.get("source") if isinstance(blob, dict) else None
        if type(number) is not int or number < 1 or not isinstance(source, str) or not isinstance(metadata, dict):
            raise self._nonsense(f"the source of {ref}", "no version or no source in it")
        return Kernel(number, source, metadata)

    def status(self, ref: str, version: int | None = None) -> Status:
        """How a session stands. A word kchain does not know comes back as it is.

        No word at all reads as QUEUED, its default on the wire: whoever believes it waits and asks again.

        Raises:
            Absent: the target knows no such kernel (just after a push: not yet).
            Unreachable: no clear answer.
        """
        from kchain.client.translate import Absent

        try:
            fields = self._kernels(f"the status of {ref}", "GetKernelSessionStatus", ref, version)
        except Absent as error:
            if error.status == 404 and "no runs" in error.words.lower():
                return Status(NEVER_RUN)
            raise
        word, failure = fields.get("status", "QUEUED"), fields.get("failureMessage")
        if not isinstance(word, str) or not word.strip():
            raise self._nonsense(f"the status of {ref}", f"status {word!r}")
        return Status(_status_word(word), str(failure) if failure else None)

    def outputs(self, ref: str, version: int | None = None) -> Outputs:
        """All output files of a finished session, and its log.

        Raises:
            Unreachable: no clear answer, also a list whose pages never end.
        """
        doing = f"the outputs of {ref}"
        files: list[OutputFile] = []
        log = ""
        for page in self._pages(doing, "ListKernelSessionOutput", ref, version):
            log = log or str(page.get("log") or "")
            for item in items_of(page, "files"):
                name, url = item.get("fileName"), item.get("url")
                if not isinstance(name, str) or not isinstance(url, str) or not name or not url:
                    raise self._nonsense(doing, "a file without a name or an address")
                files.append(OutputFile(name, url))
        return Outputs(tuple(files), log)

    def sizes(self, ref: str, version: int | None = None) -> dict[str, int]:
        """Bytes of each output file by name, as far as the target tells them."""
        from kchain.client.translate import Declined

        try:
            pages = list(self._pages(f"the output sizes of {ref}", "ListKernelFiles", ref, version))
        except Declined:
            return {}
        found = ((item.get("name"), item.get("size")) for page in pages for item in items_of(page, "files"))
        return {name: size for name, size in found if isinstance(name, str) and type(size) is int and size > 0}

    def follow(self, ref: str, version: int | None = None) -> Iterator[LogLine]:
        """The log of a session, line by line: live while it runs, else the finished one.

        Ends with the log, and quietly where the stream is not or no longer to be had: it is for people to watch; the
        status decides.
        """
        from kchain.client.stream import follow

        owner, slug = split_ref(ref)
        doing = f"the log of {ref}"
        params = {} if version is None else {"versionLabel": f"v{version}"}
        path = f"/v1/kernels/logs/stream/{owner}/{slug}"
        return follow(lambda: self.transport.stream(doing, path, params), self.transport.call_for(doing))

    def quota(self) -> Quota | None:
        """What is left of the week's GPU hours; None where the target meters nothing or does not tell."""
        fields = self.transport.read("the quota", "kernels", "GetAcceleratorQuotaStatistics")
        gpu = fields.get("gpuQuota")
        if not isinstance(gpu, dict):
            return None
        used, reserved, total = (_duration(gpu.get(name)) for name in ("timeUsed", "timeReserved", "totalTimeAllowed"))
        return Quota(used, reserved, total, str(fields.get("quotaRefreshTime") or ""))

    def dataset_status(self, ref: str) -> str | None:
        """The state of a data set ("READY", ...); None where there is none, or none for these credentials."""
        # FOLDED

        return dataset_status(self.transport, ref)

    def dataset_version(self, ref: str) -> int:
        """The current version number of a data set."""
        # FOLDED

        return dataset_version(self.transport, ref)

    def dataset_files(self, ref: str) -> tuple[DatasetFile, ...]:
        """All files of a data set with their sizes."""
        # FOLDED

        return dataset_files(self.transport, ref)

    def dataset_download(self, ref: str, name: str, to: Path) -> Path:
        """Fetch the file `name` of a data set to the path `to`."""
        # FOLDED

        return dataset_download(self.transport, ref, name, to)

    def dataset_create(self, folder: Path, ref: str, title: str) -> None:
        """Make a private data set of the files in `folder`; it is READY some time later."""
        # FOLDED

        dataset_create(self.transport, folder, ref, title)

    def _kernels(self, doing: str, method: str, ref: str, version: int | None, **fields: Any) -> dict[str, Any]:
        owner, slug = split_ref(ref)
        return self.transport.read(
            doing, "kernels", method, user_name=owner, kernel_slug=slug, version=version, **fields
        )

    def _pages(self, doing: str, method: str, ref: str, version: int | None) -> Iterator[dict[str, Any]]:
        # FOLDED

        return all_pages(
            doing, lambda token: self._kernels(doing, method, ref, version, page_size=_PAGE, page_token=token)
        )

    def _nonsense(self, doing: str, what: str) -> Unreachable:
        return Unreachable(
            f"{self.transport.who} answered what kchain cannot read ({doing}): {what}", "repeat the command"
        )


def split_ref(ref: str) -> tuple[str, str]:
    match = re.fullmatch(r"([\w.-]+)/([\w.-]+)", ref)
    if match is None:
        raise InputError(f"{ref!r} is no address of a kernel or data set", "owner/slug was due")
    return match[1], match[2]


def _status_word(word: str) -> str:
    """COMPLETE from `COMPLETE`, `complete`, `KernelWorkerStatus.COMPLETE` and `cancelAcknowledged` written alike."""
    last = word.strip().rsplit(".", 1)[-1]
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", last).upper().removeprefix(_STATUS_PREFIX)


def items_of(page: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = page.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def _duration(value: Any) -> float:
    """Seconds of "4500.5s" or of {"seconds": 4500}; 0 where it is left out."""
    if isinstance(value, dict):
        value = value.get("seconds")
    try:
        return float(str(value or 0).rstrip("s"))
    except ValueError:
        return 0.0


# Data sets: looking at them, fetching from them, and making a private one of an adapter folder.


def dataset_status(transport: Transport, ref: str) -> str | None:
    """The state of a data set, or None where the target says that there is none."""
    from kchain.client.translate import Absent

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
    from kchain.client.fetch import download

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
    from kchain.client.translate import refusal
    from kchain.client.upload import upload

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
