"""What a target answers: as kchain hands it on, and as it stands on the wire.

No import here is heavier than pydantic. Every answer is read through one of the shapes below: a field that kchain does
not know is ignored; one that is needed, and is missing or of another type, makes the answer one that cannot be read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, WrapValidator
from pydantic.alias_generators import to_camel

from kchain.server.wire import LIVE as LIVE
from kchain.server.wire import OVER as OVER

NEVER_RUN = "NEVER_RUN"
# No session has been seen for the kernel; NEVER_RUN is kchain's own word for "No runs found".
IDLE = frozenset({NEVER_RUN, "NEW_SCRIPT"})


@dataclass(frozen=True)
class Pushed:
    """An accepted push.

    Attributes:
        version: number of the kernel version that now exists and runs.
        url: its page.
        invalid: every source or tag the target did not accept, as "kernel owner/slug"; the version runs without them.
    """

    version: int
    url: str
    invalid: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """A kernel version as the target holds it.

    Attributes:
        version: `currentVersionNumber` of the answer.
        source: the notebook's JSON text.
        metadata: the answer's metadata, camelCase keys as on the wire.
    """

    version: int
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Status:
    """How a session stands.

    Attributes:
        word: the target's word in upper case, also one kchain does not know; "NEVER_RUN" where there is no session.
        failure: the target's failure message.
    """

    word: str
    failure: str | None = None


@dataclass(frozen=True)
class OutputFile:
    """One output file: its name with `/` between folders, and a signed address that needs no key."""

    name: str
    url: str = field(repr=False)


@dataclass(frozen=True)
class Outputs:
    """Everything a finished session left; `log` is the raw log string of the target."""

    files: tuple[OutputFile, ...]
    log: str


@dataclass(frozen=True)
class LogLine:
    """One whole line of a session's log.

    Attributes:
        stream: "stdout" or "stderr".
        time: seconds since the session started.
        text: the line without its end.
    """

    stream: str
    time: float
    text: str


@dataclass(frozen=True)
class Quota:
    """The week's GPU seconds; free is total - used - reserved. `refresh` is the ISO time of the next week, or ""."""

    gpu_used: float
    gpu_reserved: float
    gpu_total: float
    refresh: str = ""

    @property
    def gpu_free(self) -> float:
        return max(0.0, self.gpu_total - self.gpu_used - self.gpu_reserved)


@dataclass(frozen=True)
class DatasetFile:
    """One file of a data set, with its size in bytes."""

    name: str
    bytes: int


# The shapes on the wire, each named after what is asked.

_STATUS_PREFIX = "KERNEL_WORKER_STATUS_"


def _known(value: Any, handler: Any) -> Any:
    try:
        return handler(value)
    except ValidationError:
        return None


def _status_word(word: Any) -> Any:
    """COMPLETE from `COMPLETE`, `complete`, `KernelWorkerStatus.COMPLETE` and `cancelAcknowledged` written alike."""
    if not isinstance(word, str):
        return word
    last = word.strip().rsplit(".", 1)[-1]
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", last).upper().removeprefix(_STATUS_PREFIX)


def _seconds(value: Any) -> float:
    """Seconds of "4500.5s" or of {"seconds": 4500}; 0 where it is left out."""
    if isinstance(value, dict):
        value = value.get("seconds")
    try:
        return float(str(value or 0).rstrip("s"))
    except ValueError:
        return 0.0


Item = TypeVar("Item")
# A list of objects: null, another type, or something else between the objects is left out.
Items = Annotated[
    list[Item],
    BeforeValidator(lambda found: [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []),
]
# A field that may be told: None where it is not, or not as it should be.
Told = Annotated[Item | None, WrapValidator(_known)]
# Words for people: "" where they are not told.
Said = Annotated[str, BeforeValidator(lambda value: str(value or ""))]
Word = Annotated[str, StringConstraints(strict=True, min_length=1, pattern=r"\S")]
Number = Annotated[int, Field(strict=True, ge=1)]
Flag = Annotated[bool, Field(strict=True)]
Seconds = Annotated[float, BeforeValidator(_seconds)]


class Answer(BaseModel):
    """An answer or a part of one: camelCase names on the wire."""

    # Built at the first answer: commands that ask nobody import this, too.
    model_config = ConfigDict(alias_generator=to_camel, frozen=True, defer_build=True)


class Page(Answer):
    """One page of a list."""

    next_page_token: Said = ""


class NewestVersion(Answer):
    """What carries the number of the newest version."""

    current_version_number: Number


class Blob(Answer):
    source: Annotated[str, Field(strict=True)]


class KernelMetadata(NewestVersion):
    """Of GetKernel: what else it tells is kept as it came."""

    model_config = ConfigDict(extra="allow")


class KernelAnswer(Answer):
    metadata: KernelMetadata
    blob: Blob


class StatusAnswer(Answer):
    """GetKernelSessionStatus; no word at all reads as QUEUED, its default on the wire."""

    status: Annotated[Word, BeforeValidator(_status_word)] = "QUEUED"
    failure_message: Said = ""


class WireFile(Answer):
    file_name: Word
    url: Word


class OutputPage(Page):
    files: Items[WireFile] = []
    log: Said = ""


class FileSize(Answer):
    """A file of ListKernelFiles; nothing of it is needed."""

    name: Told[Word] = None
    size: Told[Number] = None


class SizePage(Page):
    files: Items[FileSize] = []


class GpuQuota(Answer):
    time_used: Seconds = 0.0
    time_reserved: Seconds = 0.0
    total_time_allowed: Seconds = 0.0


class QuotaAnswer(Answer):
    gpu_quota: Told[GpuQuota] = None
    quota_refresh_time: Said = ""


class DatasetStatus(Answer):
    """GetDatasetStatus; no word at all is the first of its enum."""

    status: Word = "NOT_YET_PERSISTED"


class WireDatasetFile(Answer):
    name: Word
    total_bytes: Annotated[int, Field(strict=True)] = 0


class DatasetFilePage(Page):
    dataset_files: Items[WireDatasetFile] = []


class WireModel(Answer):
    """GetModel; a missing flag reads as false, its default on the wire: then the model counts as public."""

    is_private: Told[Flag] = False
    url: Said = ""


class WireVariation(Answer):
    slug: Annotated[str, Field(strict=True)]
    version_number: Number
    framework: Said = ""
    version_notes: Said = ""
    overview: Said = ""
    status: Said = ""


class VariationPage(Page):
    instances: Items[WireVariation] = []


class Made(Answer):
    """The answer to an effect: HTTP 200 alone means nothing."""

    error: Said = ""
    id: Any = None
    url: Said = ""


class UploadStart(Answer):
    token: Word
    create_url: Word


class TokenOwner(Answer):
    active: Told[Flag] = False
    username: Told[Word] = None


class FreshToken(Answer):
    token: Word
    expires_in: Annotated[float, Field(strict=True)]


def fault_of(error: ValidationError) -> str:
    """What is wrong with an answer, in one line and without anything of the answer itself."""
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the whole'}: {first['msg'].lower()}"
