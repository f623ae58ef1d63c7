"""One client for every target: what kchain asks, and what the answers mean.

Importing this module loads neither kaggle nor kagglesdk nor requests; `connect` does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from kchain.client.answers import (
    NEVER_RUN,
    Answer,
    DatasetFile,
    DatasetFilePage,
    DatasetStatus,
    Kernel,
    KernelAnswer,
    LogLine,
    NewestVersion,
    OutputFile,
    OutputPage,
    Outputs,
    Page,
    Pushed,
    Quota,
    QuotaAnswer,
    SizePage,
    Status,
    StatusAnswer,
)
from kchain.client.refusals import Absent, Declined, refusal
from kchain.client.target import Target
from kchain.errors import InputError, Unreachable

if TYPE_CHECKING:
    from kchain.client.transport import Patience, Transport

Shape = TypeVar("Shape", bound=Answer)
AnyPage = TypeVar("AnyPage", bound=Page)

# Kaggle refuses more than 200 (kaggle-cli 2.2.5); listing very large outputs has met 429.
PAGE_SIZE = 100
# 20 GB of output in files of some kilobytes; an endless list of new tokens ends here.
_MOST_PAGES = 10_000
# Letters of a data set's slug and of its title.
_SHORTEST, _LONGEST = 6, 50


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

    # Kernels.

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
        try:
            found = self._kernels(KernelAnswer, f"the source of {ref}", "GetKernel", ref, version)
        except Absent:
            return None
        metadata = found.metadata
        return Kernel(metadata.current_version_number, found.blob.source, metadata.model_dump(by_alias=True))

    def status(self, ref: str, version: int | None = None) -> Status:
        """How a session stands. A word kchain does not know comes back as it is.

        No word at all reads as QUEUED, its default on the wire: whoever believes it waits and asks again.

        Raises:
            Absent: the target knows no such kernel (just after a push: not yet).
            Unreachable: no clear answer.
        """
        try:
            found = self._kernels(StatusAnswer, f"the status of {ref}", "GetKernelSessionStatus", ref, version)
        except Absent as error:
            if error.status == 404 and "no runs" in error.words.lower():
                return Status(NEVER_RUN)
            raise
        return Status(found.status, found.failure_message or None)

    def outputs(self, ref: str, version: int | None = None) -> Outputs:
        """All output files of a finished session, and its log.

        Raises:
            Unreachable: no clear answer, also a list whose pages never end.
        """
        pages = list(self._pages(OutputPage, f"the outputs of {ref}", "ListKernelSessionOutput", ref, version))
        files = tuple(OutputFile(file.file_name, file.url) for page in pages for file in page.files)
        return Outputs(files, next((page.log for page in pages if page.log), ""))

    def sizes(self, ref: str, version: int | None = None) -> dict[str, int]:
        """Bytes of each output file by name, as far as the target tells them."""
        try:
            pages = list(self._pages(SizePage, f"the output sizes of {ref}", "ListKernelFiles", ref, version))
        except Declined:
            return {}
        return {file.name: file.size for page in pages for file in page.files if file.name and file.size}

    def follow(self, ref: str, version: int | None = None) -> Iterator[LogLine]:
        """The log of a session, line by line: live while it runs, else the finished one.

        Ends with the log, and quietly where there is no stream, or none any more: it is for people to watch; the
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
        found = self.transport.read(QuotaAnswer, "the quota", "kernels", "GetAcceleratorQuotaStatistics")
        gpu = found.gpu_quota
        if gpu is None:
            return None
        return Quota(gpu.time_used, gpu.time_reserved, gpu.total_time_allowed, found.quota_refresh_time)

    # Data sets.

    def dataset_status(self, ref: str) -> str | None:
        """The state of a data set ("READY", ...); None where there is none, or none for these credentials."""
        try:
            found = self._datasets(DatasetStatus, f"the status of data set {ref}", "GetDatasetStatus", ref)
        except Absent:
            return None
        return found.status.upper()

    def dataset_version(self, ref: str) -> int:
        """The current version number of a data set."""
        return self._datasets(NewestVersion, f"data set {ref}", "GetDataset", ref).current_version_number

    def dataset_files(self, ref: str) -> tuple[DatasetFile, ...]:
        """All files of a data set with their sizes."""
        doing = f"the files of data set {ref}"

        def page_at(token: str) -> DatasetFilePage:
            paging: dict[str, Any] = {"page_token": token, "page_size": PAGE_SIZE}
            return self._datasets(DatasetFilePage, doing, "ListDatasetFiles", ref, **paging)

        pages = all_pages(doing, page_at)
        return tuple(DatasetFile(file.name, file.total_bytes) for page in pages for file in page.dataset_files)

    def dataset_download(self, ref: str, name: str, to: Path) -> Path:
        """Fetch one file of a data set, uncompressed, to the path `to`; its size is compared with the list's.

        Raises:
            InputError: the data set has no such file.
        """
        from kchain.client.fetch import download

        sizes = {file.name: file.bytes for file in self.dataset_files(ref)}
        if name not in sizes:
            has = ", ".join(sorted(sizes)[:20]) or "none"
            raise InputError(f"data set {ref} has no file {name!r}", f"it has {has}")
        owner, slug = split_ref(ref)
        asked: dict[str, Any] = {"owner_slug": owner, "dataset_slug": slug, "file_name": name, "raw": True}
        url = self.transport.location(f"{name} of data set {ref}", "datasets", "DownloadDataset", **asked)
        return download(url, to, sizes[name] or None, self.transport.patience)

    def dataset_create(self, folder: Path, ref: str, title: str) -> None:
        """Make a private data set of the files directly in `folder`; it is READY some time later.

        Args:
            folder: an adapter's or a checkpoint's; folders inside it are not taken along.
            ref: owner/slug, the slug with 6 to 50 letters.
            title: 6 to 50 letters.

        Raises:
            InputError: the folder is empty, the names do not fit, or the data set exists.
            Ambiguous: it may have been made.
        """
        from kchain.client.upload import new_file, upload

        owner, slug = split_ref(ref)
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        if not files:
            raise InputError(f"{folder}: no file to upload", "name the folder that holds adapter_model.safetensors")
        if not all(_SHORTEST <= len(name) <= _LONGEST for name in (slug, title)):
            raise InputError(f"data set {ref}, {title!r}: Kaggle wants 6 to 50 letters in the slug and in the title")
        status = self.dataset_status(ref)
        if status is not None and status != "DELETED":
            raise InputError(f"data set {ref} exists already ({status})", f"take it over with: --dataset {ref}")
        tokens = [upload(self.transport, path, "DATASET") for path in files]
        doing = f"making data set {ref}"
        asked = {"owner_slug": owner, "slug": slug, "title": title, "license_name": "unknown", "is_private": True}
        asked["files"] = [new_file(token) for token in tokens]
        made = self.transport.act(doing, "datasets", "CreateDataset", **asked)
        if made.error:
            raise refusal(made.error, doing)

    def _kernels(
        self, shape: type[Shape], doing: str, method: str, ref: str, version: int | None, **more: Any
    ) -> Shape:
        owner, slug = split_ref(ref)
        asked: dict[str, Any] = {"user_name": owner, "kernel_slug": slug, "version": version}
        return self.transport.read(shape, doing, "kernels", method, **asked, **more)

    def _pages(self, shape: type[AnyPage], doing: str, method: str, ref: str, version: int | None) -> Iterator[AnyPage]:
        def page_at(token: str) -> AnyPage:
            return self._kernels(shape, doing, method, ref, version, page_size=PAGE_SIZE, page_token=token)

        return all_pages(doing, page_at)

    def _datasets(self, shape: type[Shape], doing: str, method: str, ref: str, **more: Any) -> Shape:
        owner, slug = split_ref(ref)
        return self.transport.read(shape, doing, "datasets", method, owner_slug=owner, dataset_slug=slug, **more)


def all_pages(doing: str, page_at: Callable[[str], AnyPage]) -> Iterator[AnyPage]:
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
        token = page.next_page_token
        if not token:
            return
        if token in seen:
            break
        seen.add(token)
    raise Unreachable(f"the target lists {doing} without end", "repeat the command")


def split_ref(ref: str) -> tuple[str, str]:
    """("owner", "slug") of the address of a kernel, data set or model.

    Raises:
        InputError: it is not one.
    """
    match = re.fullmatch(r"([\w.-]+)/([\w.-]+)", ref)
    if match is None:
        raise InputError(f"{ref!r} is not the address of a kernel or data set", "write it as owner/slug")
    return match[1], match[2]
