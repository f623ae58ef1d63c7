"""What a target answers, as plain values. No import here is heavier than the standard library."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NEVER_RUN = "NEVER_RUN"


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
