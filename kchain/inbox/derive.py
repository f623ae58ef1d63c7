"""The named phase as it is, on another file: a run of its own, so that the phase's kernel, result and children stay.

Pure but for reading the file. Every file has a kernel of its own: its adapter stays that kernel's last output, and a
later phase can take it over (`kchain adopt --kernel`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from kchain.inbox.box import SHORT_HASH
from kchain.inbox.examples import SOURCE
from kchain.orchestrator.continuation import content_slug
from kchain.phases import Chain, Source
from kchain.phases.project_files import PROJECT_FILE_LIMIT
from kchain.phases.values import Column

# Of the phase's title, so that the whole has the 50 letters that Kaggle takes.
_TITLE = 33


@dataclass(frozen=True)
class Run:
    """A run of a phase on one file.

    Attributes:
        chain: the chain with one phase more.
        name: of that phase.
        dataset: the private data set that the file travels in; empty where it stands in the notebook.
    """

    chain: Chain
    name: str
    dataset: str


def run_name(phase: str, sha256: str) -> str:
    """What the journal calls the run of a phase on a file."""
    return f"{phase}-inbox-{sha256[:SHORT_HASH]}"


def title_of(title: str, phase: str, sha256: str) -> str:
    """The title of such a run, of which its kernel's address is made.

    Its digits are of phase and file, since of two phases' titles the first letters may be the same.
    """
    digits = hashlib.sha256(f"{phase} {sha256}".encode()).hexdigest()[:SHORT_HASH]
    return f"{title[:_TITLE].rstrip()} inbox {digits}"


def derive(chain: Chain, phase: str, sha256: str, lines: Path, fields: dict[str, Column]) -> Run:
    """The run of a phase on a file.

    Args:
        sha256: of the file as it was dropped.
        lines: its rows as JSON lines.
        fields: recipe field = column.
    """
    if _fits(lines):
        # ASCII, the name is a file's in the notebook: whatever the dropped file was called.
        source = Source(name=SOURCE, file=f"inbox/{lines.name}", fields=fields)
        files = {**chain.files, f"inbox/{lines.name}": lines.read_text(encoding="utf-8")}
        return _run(chain, phase, sha256, source, files, "")
    ref = f"{chain.owner}/{content_slug(f'{chain.name}-inbox', sha256)}"
    source = Source(name=SOURCE, dataset=ref, file=lines.name, fields=fields)
    return _run(chain, phase, sha256, source, dict(chain.files), ref)


def _run(chain: Chain, phase: str, sha256: str, source: Source, files: dict[str, str], dataset: str) -> Run:
    base = chain.phase(phase)
    name = run_name(phase, sha256)
    title = title_of(base.title, phase, sha256)
    made = replace(base, name=name, title=title, data=base.data.model_copy(update={"sources": (source,)}))
    return Run(replace(chain, phases=(*chain.phases, made), files=files), name, dataset)


def _fits(lines: Path) -> bool:
    """Whether a file can travel in the notebook, which is sent as ASCII: a letter beyond that takes six bytes or more.

    The notebook's other cells take a quarter of the MiB that Kaggle allows.
    """
    if lines.stat().st_size > PROJECT_FILE_LIMIT:
        return False
    return len(json.dumps(lines.read_text(encoding="utf-8"))) <= 2 * PROJECT_FILE_LIMIT
