"""A small model of a kernel service: kernels, versions, sessions that need several sessions, data sets.

Its clock moves only by sleeping, and a process can die at each of its points.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kchain.bundle import Continuation, continuation_of, find_hash
from kchain.client.answers import Kernel, LogLine, Pushed, Status
from kchain.errors import AdapterRefused, EditedOutside, GateMissed, PhaseFailed
from kchain.kernel_metadata import METADATA_FILE as METADATA
from kchain.kernel_metadata import NOTEBOOK_FILE as NOTEBOOK
from kchain.orchestrator.judging.adapter import VerifiedAdapter
from kchain.orchestrator.judging.checkpoint import NoCheckpoint, Paused, no_checkpoint, paused
from kchain.orchestrator.judging.judge import Verdict
from kchain.orchestrator.judging.result import read_result
from kchain.phases import Chain

OWNER = "someone"
STEPS = 40


class Died(BaseException):
    """The process is gone: no handler of the driver may catch this."""


class Points:
    """Moments at which the process can die: dies at the one numbered `fatal`."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.fatal: int | None = None

    def reach(self, name: str) -> None:
        self.names.append(name)
        if self.fatal is not None and len(self.names) == self.fatal:
            raise Died(name)


class ModelClock:
    """Only sleeping moves it; whoever ticks sees each sleep."""

    def __init__(self) -> None:
        self.time = 1_000_000.0
        self.on_tick: Callable[[], None] = lambda: None

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.on_tick()

    def wake(self) -> None:
        return


@dataclass
class ModelVersion:
    number: int
    source: str
    ends: float
    lineage: list[dict[str, str]]
    final: str = "COMPLETE"
    result: dict[str, Any] | None = None
    manifest: bytes = b""


@dataclass
class DataSet:
    """A data set: the manifest that lies in it, and when it is ready."""

    manifest: bytes
    ready: float
    word: str = "BLOBS_RECEIVED"


@dataclass
class ModelService:
    """Kernels with versions; each accepted push is a version whose session runs for `runtime` seconds.

    Attributes:
        sessions: kernel -> sessions that its training takes; 1 where it is not named.
        slow: kernels whose first session crawls, and stops itself.
        killed: kernels whose sessions are killed at the time limit, after they saved their checkpoint.
        own_output: whether a kernel finds its own last output: "mounted", "empty", or "invalid" (refused as a source).
        dataset_mounts: for each session that goes on from a data set, whether that is there; True when empty.
    """

    clock: ModelClock
    chain: Chain
    runtime: float = 3.0
    kernels: dict[str, list[ModelVersion]] = field(default_factory=dict)
    faults: list[Any] = field(default_factory=list)
    read_faults: list[BaseException] = field(default_factory=list)
    finals: dict[str, list[str]] = field(default_factory=dict)
    invalid: list[tuple[str, ...]] = field(default_factory=list)
    words: dict[str, list[str]] = field(default_factory=dict)
    overlaps: list[str] = field(default_factory=list)
    unbuilt: list[str] = field(default_factory=list)
    reads: int = 0
    points: Points = field(default_factory=Points)
    owner: str = OWNER
    sessions: dict[str, int] = field(default_factory=dict)
    slow: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)
    own_output: str = "mounted"
    datasets: dict[str, DataSet] = field(default_factory=dict)
    dataset_faults: list[Any] = field(default_factory=list)
    dataset_mounts: list[bool] = field(default_factory=list)
    uploads: int = 0

    def push(self, folder: Path, timeout: int) -> Pushed:
        """Accept, refuse or lose: a fault is an error, or (error, "after") when the version is made all the same."""
        self.points.reach("push:before")
        metadata = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, BaseException):
            raise fault
        version = self.accept(metadata["id"], (folder / NOTEBOOK).read_text(encoding="utf-8"), metadata)
        self.points.reach("push:after")
        if fault is not None:
            raise fault[0]
        invalid = self.invalid.pop(0) if self.invalid else ()
        if invalid:
            version.final, version.result = "ERROR", None
        if self.own_output == "invalid" and metadata["id"] in metadata["kernel_sources"]:
            invalid = (*invalid, f"kernel {metadata['id']}")
        return Pushed(version.number, f"https://target/{metadata['id']}/{version.number}", invalid)

    def accept(self, ref: str, source: str, metadata: dict[str, Any] | None = None) -> ModelVersion:
        """A push as the service sees it; also by hand, from outside."""
        versions = self.kernels.setdefault(ref, [])
        if any(self.live(version) for version in versions):
            self.overlaps.append(ref)
        parents = [source for source in metadata["kernel_sources"] if source != ref] if metadata else []
        lineage = [{"phase": self.phase(parent), "sha256": self.output_of(parent)} for parent in parents]
        self.unbuilt += [parent["phase"] for parent in lineage if parent["sha256"] == ""]
        version = ModelVersion(len(versions) + 1, source, self.clock.time + self.runtime, lineage)
        finals = self.finals.get(ref, [])
        version.final = finals.pop(0) if finals else "COMPLETE"
        bundle = find_hash(source)
        if version.final == "COMPLETE" and bundle:
            self._run(ref, version, bundle)
        versions.append(version)
        return version

    def _run(self, ref: str, version: ModelVersion, bundle: str) -> None:
        """What the session comes to: its adapter, a checkpoint, or no checkpoint found."""
        continues = continuation_of(json.loads(version.source))
        session = 1 if continues is None else continues.session
        version.result = {"bundle": bundle, "session": session, "lineage": version.lineage, "seconds": 10.0}
        version.result["pad_id"] = 151645
        if continues is not None and not self._mounted(ref, continues):
            reason = f"preflight: continuation: the checkpoint of session {session - 1} is not in {continues.ref}"
            version.result |= {"status": "failed", "reason": reason}
            version.final = "ERROR"
        elif session < self.sessions.get(ref, 1):
            files = {"state.bin": hashlib.sha256(b"state").hexdigest()}
            manifest = {"step": 10 * session, "steps": STEPS, "files": files, "of": [ref, version.number]}
            version.manifest = json.dumps(manifest).encode()
            sha256 = hashlib.sha256(version.manifest).hexdigest()
            stopped = "slow" if ref in self.slow else "time"
            version.result |= {"status": "partial", "stopped": stopped, "adapter": None}
            version.result["checkpoint"] = {"folder": "checkpoint", "sha256": sha256}
            if ref in self.killed:
                version.final = "CANCEL_ACKNOWLEDGED"
                version.result |= {"status": "failed", "reason": "the session was ended during evaluate"}
        else:
            adapter = hashlib.sha256(f"{ref}{version.number}".encode()).hexdigest()
            version.result |= {"status": "complete", "adapter": {"sha256": adapter}, "checkpoint": None}

    def _mounted(self, ref: str, continues: Continuation) -> bool:
        if continues.kind == "dataset":
            found = self.datasets[continues.ref].manifest if self.dataset_status(continues.ref) == "READY" else b""
            found = found if not self.dataset_mounts or self.dataset_mounts.pop(0) else b""
        else:
            finished = [each for each in self.kernels[ref] if each.final == "COMPLETE"]
            found = finished[-1].manifest if finished and self.own_output == "mounted" else b""
        return hashlib.sha256(found).hexdigest() == continues.sha256

    def phase(self, ref: str) -> str:
        return next(each.name for each in self.chain.phases if self.chain.kernel(each.name) == ref)

    def output_of(self, ref: str) -> str:
        versions = self.kernels.get(ref, [])
        ended = bool(versions) and not self.live(versions[-1]) and versions[-1].result is not None
        return str((versions[-1].result["adapter"] or {}).get("sha256", "")) if ended and versions[-1].result else ""

    def live(self, version: ModelVersion) -> bool:
        return self.clock.time < version.ends

    def kernel(self, ref: str, version: int | None = None) -> Kernel | None:
        self._read()
        versions = self.kernels.get(ref, [])
        if not versions or (version is not None and version > len(versions)):
            return None
        return Kernel(len(versions), versions[(version or len(versions)) - 1].source)

    def status(self, ref: str, version: int | None = None) -> Status:
        self._read()
        if self.words.get(ref):
            return Status(self.words[ref].pop(0))
        versions = self.kernels[ref]
        chosen = versions[(version or len(versions)) - 1]
        return Status("RUNNING" if self.live(chosen) else chosen.final, None)

    def follow(self, ref: str, version: int | None = None) -> Iterator[LogLine]:
        return iter(())

    def dataset_version(self, ref: str) -> int:
        self._read()
        return 1

    def dataset_status(self, ref: str) -> str | None:
        self._read()
        found = self.datasets.get(ref)
        if found is None:
            return None
        return "READY" if self.clock.time >= found.ready and found.word == "BLOBS_RECEIVED" else found.word

    def dataset_create(self, folder: Path, ref: str, title: str) -> None:
        """As `push`: a fault is an error, or (error, "after") when the data set is made all the same."""
        self.points.reach("dataset:before")
        fault = self.dataset_faults.pop(0) if self.dataset_faults else None
        if isinstance(fault, BaseException):
            raise fault
        assert ref not in self.datasets, "made twice"
        assert {file.name for file in folder.iterdir()} == {"manifest.json", "state.bin"}
        self.datasets[ref] = DataSet((folder / "manifest.json").read_bytes(), self.clock.time + 2.0)
        self.uploads += 1
        self.points.reach("dataset:after")
        if fault is not None:
            raise fault[0]

    def _read(self) -> None:
        self.reads += 1
        if self.read_faults:
            raise self.read_faults.pop(0)

    def pull(self, client: Any, ref: str, version: int, to: Path) -> Path:
        """What `pull.pull` leaves: the result file, the checkpoint and the log."""
        self.points.reach("pull:before")
        to.mkdir(parents=True, exist_ok=True)
        chosen = self.kernels[ref][version - 1]
        if chosen.result is not None:
            (to / "kchain-result.json").write_text(json.dumps(chosen.result), encoding="utf-8")
        if chosen.manifest:
            (to / "checkpoint").mkdir()
            (to / "checkpoint" / "manifest.json").write_bytes(chosen.manifest)
            (to / "checkpoint" / "state.bin").write_bytes(b"state")
        (to / "session.log").write_text("the log", encoding="utf-8")
        self.points.reach("pull:after")
        return to

    @property
    def accepted(self) -> int:
        return sum(len(versions) for versions in self.kernels.values())


def model_judge(
    chain: Chain, phase: str, version: Any, folder: Path, *, final: bool = False
) -> Verdict | Paused | NoCheckpoint:
    """The real judge's order of questions, over results without tensors."""
    result = read_result(folder)
    if result is None:
        raise PhaseFailed(f"{phase} version {version.number} ended with {version.word} and left no result")
    if result.bundle != version.hash:
        raise EditedOutside("another bundle")
    if not final and (stopped := paused(result, version, folder)) is not None:
        return stopped
    if result.status == "failed":
        if (absent := no_checkpoint(result, version)) is not None:
            return absent
        raise PhaseFailed(f"{phase} failed: {result.reason}")
    if result.status == "partial" and chain.phase(phase).gates.all_epochs:
        raise GateMissed(f"{phase} did not run to its end")
    if result.lineage != version.lineage:
        raise AdapterRefused(f"{phase} was built on other adapters than recorded")
    sha256 = (result.adapter.sha256 if result.adapter is not None else None) or ""
    return Verdict(VerifiedAdapter(folder / "adapter", sha256, 1000, 4, result), ())
