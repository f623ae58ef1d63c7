"""A tiny project against its own embedded server, and kchain run in it as a user runs it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from command import kchain as typed

from kchain.client.client import connect
from kchain.client.target import LOCAL, Target
from kchain.demo.project import open_project, publish
from kchain.phases import load_chain


def kchain(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`kchain …` in a folder, in this process, its output as text 140 columns wide."""
    return typed(folder, *arguments, COLUMNS="140")


def started(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "kchain", *arguments]
    told = {**os.environ, "COLUMNS": "140", **environment}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=1400, env=told)


def make_project(folder: Path, **training: object) -> Path:
    """The shipped tiny chain with other training values in every phase, its model and data published."""
    chain = open_project(folder)
    for phase in chain.phases:
        path = folder / phase.file
        text = re.sub(r"(?ms)^\[(training|gates)\]\n.*?(?=^\[|\Z)", "", path.read_text(encoding="utf-8"))
        table = "".join(f"{key} = {value}\n" for key, value in training.items())
        few = "[samples]\ncount = 2\ntokens = 8\n"
        path.write_text(f"{text}\n{few}[training]\n{table}", encoding="utf-8")
    set_gates(folder, all_epochs="true")
    publish(folder / ".kchain" / "local")
    return folder


def set_gates(project: Path, **gates: object) -> None:
    """Give the chain these gates and no others."""
    path = project / "kchain.toml"
    table = "".join(f"{key} = {value}\n" for key, value in gates.items())
    text = re.sub(r"(?ms)^\[gates\]\n.*?(?=^\[|\Z)", "", path.read_text(encoding="utf-8"))
    path.write_text(f"{text}\n[gates]\n{table}", encoding="utf-8")


def states(project: Path) -> dict[str, Any]:
    """The rows of `kchain status --json`, by phase."""
    done = kchain(project, "status", "--json")
    assert done.returncode == 0, done.stderr
    return {row["phase"]: row for row in json.loads(done.stdout)["phases"]}


def accepted_versions(project: Path) -> dict[str, int]:
    """The current version of every kernel as the target tells it, by phase; 0 where there is none."""
    chain = load_chain(project)
    client = connect(Target(LOCAL, chain.owner, project))
    kernels = {phase.name: client.kernel(chain.kernel(phase.name)) for phase in chain.phases}
    return {name: kernel.version if kernel else 0 for name, kernel in kernels.items()}
