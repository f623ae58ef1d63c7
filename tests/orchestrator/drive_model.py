"""A driver's world around a small model of a kernel service.

A clock that only sleeping moves, points at which a process can die, bundles that render in no time. Everything else is
the real driver, journal and file system.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drive_service import OWNER, Died, ModelClock, ModelService, Points, model_judge

from kchain.bundle import Bundle, continued, parse
from kchain.client.target import Target
from kchain.kernel_metadata import NOTEBOOK_FILE
from kchain.orchestrator.driving import folders
from kchain.orchestrator.driving.drive import Ports
from kchain.orchestrator.driving.folders import BundleFolder, bundle_folders
from kchain.orchestrator.journal.journal import Journal, Key
from kchain.orchestrator.journal.state import PhaseState
from kchain.phases import Chain, load_chain
from kchain.templates import NO_HASH


def make_chain(root: Path, phases: int = 3, **training: object) -> Chain:
    """A chain of phases named one, two, three, each on the one before."""
    (root / "phases").mkdir(parents=True, exist_ok=True)
    (root / "kchain.toml").write_text(
        f'[chain]\nname = "model"\nowner = "{OWNER}"\ntarget = "local"\naccelerator = "cpu"\n'
        '[model]\nsource = "owner/model/transformers/tiny/1"\n[training]\n'
        + "".join(f"{key} = {value}\n" for key, value in training.items()),
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


class ModelFolder(BundleFolder):
    """A real bundle that renders in no time: two cells, the text of the second is the phase's description and `salt`.

    `limits` is another max_sessions, `code` other code: neither changes what is trained.
    """

    salt: dict[str, str] = {}
    limits: dict[str, int] = {}
    code: dict[str, str] = {}
    lint_errors: dict[str, tuple[str, ...]] = {}

    @property
    def rendered(self) -> Bundle:  # type: ignore[override]
        phase = self.phase
        configured = self._chain.phase(phase)
        text = f"{configured.description} {self.salt.get(phase, '')}"
        training = {"max_sessions": self.limits.get(phase, configured.training.max_sessions)}
        values = {
            "phase": phase,
            "target": "local",
            "data": text,
            "training": training,
            "session_timeout": 600,
            "continuation": None,
        }
        cells = [
            {"cell_type": "code", "id": "p", "metadata": {}, "source": f'BUNDLE = "{NO_HASH}"\nPARAMETERS = {values}'},
            {"cell_type": "code", "id": "c", "metadata": {}, "source": f"# {self.code.get(phase, '')}"},
        ]
        for cell in cells:
            cell.update(execution_count=None, outputs=[])
        kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = {"cells": cells, "metadata": {"kernelspec": kernelspec}, "nbformat": 4, "nbformat_minor": 5}
        sources = [self._chain.kernel(parent.name) for parent in self._chain.lineage(phase)]
        metadata = {
            "id": self._chain.kernel(phase),
            "title": configured.title,
            "code_file": NOTEBOOK_FILE,
            "language": "python",
            "kernel_type": "notebook",
            "kernel_sources": sources,
            "dataset_sources": [],
        }
        # What changes only the limits is rendered, too, so the text is written as `continued` writes it.
        return continued(parse(json.dumps(notebook), json.dumps(metadata)), None)

    def lint(self) -> tuple[str, ...]:
        return self.lint_errors.get(self.phase, ())


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
        ModelFolder.salt[phase] = salt

    def review(self, *phases: str) -> None:
        """What `kchain review` leaves: the folder written, the hash recorded."""
        found = bundle_folders(self.chain, self.target, {})
        with Journal(self.chain.root, Key(self.target.name, self.chain.owner, self.chain.name)) as journal:
            for phase in phases or [each.name for each in self.chain.phases]:
                journal.append(phase, "reviewed", hash=found[phase].write().hash)

    def reload(self) -> None:
        """Read the project's files again, as the next command does."""
        self.chain = load_chain(self.chain.root)

    def restarted(self) -> None:
        """The next process: nothing of the last one is left but files and the service."""
        self.service.points.fatal = None


def make_world(root: Path, phases: int = 3, **training: object) -> World:
    chain = make_chain(root, phases, **training)
    clock = ModelClock()
    return World(chain, Target("local", OWNER, root), ModelService(clock, chain), clock, Listener())


@contextmanager
def model_parts(points: Points | None = None) -> Iterator[None]:
    """Put the model bundles in, and death points around every journal event."""
    real_append = Journal.append

    def append(self: Journal, phase: str, kind: str, /, *, kept: Any = None, **detail: Any) -> None:
        if points is not None:
            points.reach(f"{kind}:before")
        real_append(self, phase, kind, kept=kept, **detail)
        if points is not None:
            points.reach(f"{kind}:after")

    ModelFolder.salt, ModelFolder.lint_errors, ModelFolder.limits, ModelFolder.code = {}, {}, {}, {}
    folders.BundleFolder = ModelFolder  # type: ignore[misc]
    Journal.append = append  # type: ignore[method-assign]
    try:
        yield
    finally:
        folders.BundleFolder = BundleFolder  # type: ignore[misc]
        Journal.append = real_append  # type: ignore[method-assign]


__all__ = ["Died", "Listener", "ModelFolder", "Points", "World", "make_chain", "make_world", "model_parts"]
