"""A project on its own local server, for tests that drive it in this process or by the real command line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import drive_quick
from command import kchain as typed
from drive_model import Listener

import kchain.bundle
from kchain.client.client import Client, connect
from kchain.client.target import Target
from kchain.orchestrator.journal.journal import Key, read_states
from kchain.orchestrator.journal.state import PhaseState
from kchain.orchestrator.push import push
from kchain.orchestrator.review import record, review
from kchain.orchestrator.watch import watch
from kchain.phases import Chain, load_chain

OWNER = "someone"


class Project:
    """A project on its own local server, driven in this process or by the real command line."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = drive_quick.make_project(root, owner=OWNER, **options)
        self.target = Target("local", OWNER, root)
        self.listener = Listener()

    @property
    def chain(self) -> Chain:
        return load_chain(self.root)

    @property
    def client(self) -> Client:
        return connect(self.target)

    def states(self) -> dict[str, PhaseState]:
        return read_states(self.root, Key("local", OWNER, "quick"))

    def watch(self, **options: Any) -> None:
        watch(self.chain, self.target, self.listener, **options)

    def push(self, phase: str, **options: Any) -> Any:
        return push(self.chain, phase, self.target, self.listener, **options)

    def review(self) -> None:
        record(self.chain, self.target, review(self.chain, self.target, [phase.name for phase in self.chain.phases]))

    def versions(self) -> list[int]:
        """The current version of every kernel, as the server counts them."""
        kernels = [self.client.kernel(self.chain.kernel(phase.name)) for phase in self.chain.phases]
        return [kernel.version if kernel is not None else 0 for kernel in kernels]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """The real command line, in its own process group as a terminal gives it."""
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            [sys.executable, str(Path(drive_quick.__file__)), *arguments],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """The same, in this process."""
        with mock.patch.object(kchain.bundle, "build", drive_quick.quick_build):
            done = typed(self.root, *arguments)
        return done.returncode, done.stdout, done.stderr


Maker = Callable[..., Project]
