"""A small model of a kernel service, and a driver's world around it.

A clock that only sleeping moves, points at which a process can die, bundles that render in no time. Everything else is
the real driver, journal and file system.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kchain.errors import AdapterRefused, EditedOutside, PhaseFailed
from kchain.kernel_metadata import METADATA_FILE as METADATA
from kchain.kernel_metadata import NOTEBOOK_FILE as NOTEBOOK
from kchain.orchestrator import drive
from kchain.orchestrator.answers import Kernel, LogLine, Pushed, Status
from kchain.orchestrator.drive import Ports
from kchain.orchestrator.folders import BundleFolders
from kchain.orchestrator.journal import Journal, Key
from kchain.orchestrator.judge import Verdict, read_result
from kchain.orchestrator.state import Ancestor, PhaseState
from kchain.orchestrator.target import Target
from kchain.orchestrator.verify import Adapter
from kchain.phases import Chain, load_chain

OWNER = "someone"


def make_chain(root: Path, phases: int = 3) -> Chain:
    """A chain of phases named one, two, three, each on the one before."""
    (root / "phases").mkdir(parents=True, exist_ok=True)
    (root / "kchain.toml").write_text(
        f'[chain]\nname = "model"\nowner = "{OWNER}"\ntarget = "local"\naccelerator = "cpu"\n'
        '[model]\nsource = "owner/model/transformers/tiny/1"\n',
        encoding="utf-8",
    )
    names = ["one", "two", "three", "four"][:phases]
    for index, name in enumerate(names):
        after = f'after = "{names[index - 1]}"\n' if index else ""
        (root / "phases" / f"{name}.toml").write_text(
            f'title = "Model phase {name}"\ndescription = "Teaches {name}."\n{after}[data]\n'
            '[[data.sources]]\nname = "x"\ndataset = "a/b"\nfile = "c.jsonl"\n'
            'fields = { prompt = "p", completion = "c" }\n',
            encoding="utf-8",
        )
    return load_chain(root)


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


@dataclass
class ModelService:
    """Kernels with versions; each accepted push is a version whose session runs for `runtime` seconds."""

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
        return Pushed(version.number, f"https://target/{metadata['id']}/{version.number}", invalid)

    def accept(self, ref: str, source: str, metadata: dict[str, Any] | None = None) -> ModelVersion:
        """A push as the service sees it; also by hand, from outside."""
        versions = self.kernels.setdefault(ref, [])
        if any(self.live(version) for version in versions):
            self.overlaps.append(ref)
        parents = metadata["kernel_sources"] if metadata else []
        lineage = [{"phase": parent, "sha256": self.output_of(parent)} for parent in parents]
        self.unbuilt += [parent["phase"] for parent in lineage if parent["sha256"] == ""]
        version = ModelVersion(len(versions) + 1, source, self.clock.time + self.runtime, lineage)
        finals = self.finals.get(ref, [])
        version.final = finals.pop(0) if finals else "COMPLETE"
        bundle = json.loads(source).get("metadata", {}).get("bundle") if source.startswith("{") else None
        if version.final == "COMPLETE" and bundle:
            version.result = {
                "bundle": bundle,
                "status": "complete",
                "adapter": hashlib.sha256(f"{ref}{version.number}".encode()).hexdigest(),
                "lineage": lineage,
            }
        versions.append(version)
        return version

    def output_of(self, ref: str) -> str:
        versions = self.kernels.get(ref, [])
        ended = bool(versions) and not self.live(versions[-1]) and versions[-1].result is not None
        return str(versions[-1].result["adapter"]) if ended and versions[-1].result else ""

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

    def _read(self) -> None:
        self.reads += 1
        if self.read_faults:
            raise self.read_faults.pop(0)

    def pull(self, client: Any, ref: str, version: int, to: Path) -> Path:
        """What `pull.pull` leaves: the result file and the log."""
        self.points.reach("pull:before")
        to.mkdir(parents=True, exist_ok=True)
        chosen = self.kernels[ref][version - 1]
        if chosen.result is not None:
            (to / "kchain-result.json").write_text(json.dumps(chosen.result), encoding="utf-8")
        (to / "session.log").write_text("the log", encoding="utf-8")
        self.points.reach("pull:after")
        return to

    @property
    def accepted(self) -> int:
        return sum(len(versions) for versions in self.kernels.values())


def model_judge(chain: Chain, phase: str, version: Any, folder: Path) -> Verdict:
    """The real judge's order of questions, over results without tensors."""
    result = read_result(folder)
    if result is None:
        raise PhaseFailed(f"{phase} version {version.number} ended with {version.word} and left no result")
    if result["bundle"] != version.hash:
        raise EditedOutside("another bundle")
    used = tuple(Ancestor(row["phase"], row["sha256"]) for row in result["lineage"])
    wanted = tuple(Ancestor(chain.kernel(row.phase), row.sha256) for row in version.lineage)
    if used != wanted:
        raise AdapterRefused(f"{phase} was built on other adapters than recorded")
    return Verdict(Adapter(folder / "adapter", result["adapter"], 1000, 4, {"pad_id": 151645}), ())


class ModelFolders(BundleFolders):
    """Bundles that render in no time: the hash is over the phase's name, its description and `salt`."""

    salt: dict[str, str] = {}
    lint_errors: dict[str, tuple[str, ...]] = {}

    def rendered(self, phase: str) -> Any:
        text = f"{phase} {self._chain.phase(phase).description} {self.salt.get(phase, '')}"
        notebook = {"cells": [{"cell_type": "code", "source": text}], "metadata": {}}
        sources = [self._chain.kernel(parent.name) for parent in self._chain.lineage(phase)]
        metadata = {"id": self._chain.kernel(phase), "kernel_sources": sources}
        bundle_hash = _hash(notebook, metadata)
        notebook["metadata"] = {"bundle": bundle_hash}
        return SimpleNamespace(hash=bundle_hash, notebook=notebook, metadata=metadata)

    def write(self, phase: str) -> Path:
        folder, bundle = self.folder(phase), self.rendered(phase)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / NOTEBOOK).write_text(json.dumps(bundle.notebook), encoding="utf-8")
        (folder / METADATA).write_text(json.dumps(bundle.metadata), encoding="utf-8")
        return folder

    def lint(self, phase: str) -> tuple[str, ...]:
        return self.lint_errors.get(phase, ())

    def _hash(self, phase: str, folder: Path) -> str:
        notebook = json.loads((folder / NOTEBOOK).read_text(encoding="utf-8"))
        return _hash(notebook, json.loads((folder / METADATA).read_text(encoding="utf-8")))


def _hash(notebook: dict[str, Any], metadata: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps([notebook["cells"], metadata]).encode()).hexdigest()


class Listener:
    """A Reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []
        self.waits: list[tuple[str, str]] = []
        self.events: list[tuple[str, Any]] = []

    def note(self, phase: str, text: str) -> None:
        self.notes.append((phase, text))

    def waiting(self, phase: str, text: str) -> None:
        self.waits.append((phase, text))

    def event(self, phase: str, event: Any) -> None:
        self.events.append((phase, event))

    def said(self, part: str) -> bool:
        return any(part in text for _, text in [*self.notes, *self.waits])


@dataclass
class World:
    """One project, one service, one clock."""

    chain: Chain
    target: Target
    service: ModelService
    clock: ModelClock
    listener: Listener

    @property
    def ports(self) -> Ports:
        return Ports(lambda target: self.service, self.service.pull, model_judge, self.clock)  # type: ignore[arg-type,return-value]

    def states(self) -> dict[str, PhaseState]:
        with Journal(self.chain.root, Key(self.target.name, self.chain.owner, self.chain.name)) as journal:
            return journal.states()

    def state(self, phase: str) -> PhaseState:
        return self.states().get(phase, PhaseState())

    def kinds(self, phase: str | None = None) -> list[str]:
        with Journal(self.chain.root, Key(self.target.name, self.chain.owner, self.chain.name)) as journal:
            return [entry.kind for entry in journal.entries() if phase in (None, entry.phase)]

    def edit(self, phase: str, salt: str) -> None:
        """Change a phase file: its bundle renders to something else from now on."""
        ModelFolders.salt[phase] = salt

    def review(self, *phases: str) -> None:
        """What `kchain review` leaves: the folder written, the hash recorded."""
        folders = ModelFolders(self.chain, self.target, {})
        with Journal(self.chain.root, Key(self.target.name, self.chain.owner, self.chain.name)) as journal:
            for phase in phases or [each.name for each in self.chain.phases]:
                folders.write(phase)
                journal.append(phase, "reviewed", hash=folders.rendered(phase).hash)

    def restarted(self) -> None:
        """The next process: nothing of the last one is left but files and the service."""
        self.service.points.fatal = None


def make_world(root: Path, phases: int = 3) -> World:
    chain = make_chain(root, phases)
    clock = ModelClock()
    return World(chain, Target("local", OWNER, root), ModelService(clock, chain), clock, Listener())


@contextmanager
def model_parts(points: Points | None = None) -> Iterator[None]:
    """Put the model bundles in, and death points around every journal event."""
    real_append = Journal.append
    originals = drive.BundleFolders

    def append(self: Journal, phase: str, kind: str, /, *, kept: Any = None, **detail: Any) -> None:
        if points is not None:
            points.reach(f"{kind}:before")
        real_append(self, phase, kind, kept=kept, **detail)
        if points is not None:
            points.reach(f"{kind}:after")

    ModelFolders.salt, ModelFolders.lint_errors = {}, {}
    drive.BundleFolders = ModelFolders  # type: ignore[misc]
    Journal.append = append  # type: ignore[method-assign]
    try:
        yield
    finally:
        drive.BundleFolders = originals  # type: ignore[misc]
        Journal.append = real_append  # type: ignore[method-assign]


__all__ = ["Died", "Listener", "ModelFolders", "Points", "World", "make_chain", "make_world", "model_parts"]
