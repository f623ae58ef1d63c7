"""`kchain review`: what would be pushed, and what changed since the last push. Showing it is what makes it reviewed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kchain.client.target import Target
from kchain.kernel_metadata import METADATA_FILE
from kchain.orchestrator.driving.folders import BundleFolders, adopted_sources, keep, rehearsals, session_of
from kchain.orchestrator.journal.journal import Journal, KeptBundle, Key
from kchain.orchestrator.journal.state import PhaseState
from kchain.phases import Chain
from kchain.phases.plan import Plan, UsePlan, plan_of

if TYPE_CHECKING:
    from kchain.bundle.lint import Finding


@dataclass(frozen=True)
class Review:
    """One bundle as a person is shown it.

    Attributes:
        plan: what the phase will do.
        pushed: version that was pushed last; None: none was.
        changes: diff of notebook and metadata against that version; against nothing for a first push.
        known: this very bundle was reviewed before, and nothing waits for another look at it.
        goes_on: the session that this bundle goes on with; empty: it begins a training.
        rehearsed: seconds since the epoch at which this code came to its end in a rehearsal; None: it never did.
    """

    phase: str
    kernel: str
    folder: Path
    hash: str
    plan: Plan | UsePlan
    metadata: Mapping[str, Any]
    pushed: int | None
    changes: tuple[str, ...]
    findings: tuple[Finding, ...]
    known: bool
    goes_on: str = ""
    rehearsed: float | None = None


def review(chain: Chain, target: Target, phases: list[str]) -> list[Review]:
    """Render, write, lint and compare the bundles of these phases; records nothing.

    Raises:
        InputError: a phase cannot be rendered, or the journal is damaged.
    """
    with Journal(chain.root, Key(target.name, chain.owner, chain.name)) as journal:
        states = journal.states()
        folders = BundleFolders(chain, target, adopted_sources(chain, states))
        times = rehearsals(chain)
        return [_review(chain, folders, journal, states.get(phase, PhaseState()), phase, times) for phase in phases]


def record(chain: Chain, target: Target, reviews: list[Review]) -> None:
    """Remember that a person was shown these bundles."""
    with Journal(chain.root, Key(target.name, chain.owner, chain.name)) as journal:
        for shown in reviews:
            if not shown.known:
                journal.append(shown.phase, "reviewed", hash=shown.hash)


def _review(
    chain: Chain,
    folders: BundleFolders,
    journal: Journal,
    state: PhaseState,
    phase: str,
    rehearsed: Mapping[tuple[str, str], float],
) -> Review:
    from kchain.bundle.lint import lint

    folder = folders.write(phase)
    bundle = folders.rendered(phase)
    last = journal.kept(state.version.hash) if state.version is not None else None
    goes_on = _goes_on(chain, folders, state, phase, last)
    waits = state.failure is not None and state.failure.hash == bundle.hash and not state.failure.again
    return Review(
        phase=phase,
        kernel=chain.kernel(phase),
        folder=folder,
        hash=bundle.hash,
        plan=plan_of(chain, phase),
        metadata=bundle.metadata,
        pushed=state.version.number if state.version is not None else None,
        changes=tuple(_changes(folders, phase, last)),
        findings=tuple(lint(folder)),
        known=bundle.hash in state.reviewed and not (waits and goes_on),
        goes_on=goes_on,
        rehearsed=rehearsed.get((phase, bundle.code_hash)),
    )


def _goes_on(chain: Chain, folders: BundleFolders, state: PhaseState, phase: str, last: KeptBundle | None) -> str:
    version, checkpoint = state.version, state.checkpoint
    if version is None or checkpoint is None:
        return ""
    same = folders.rendered(phase).hash == version.approved
    most = version.max_sessions if same else chain.phase(phase).training.max_sessions
    if checkpoint.session >= most or not (same or folders.same_training(phase, last)):
        return ""
    return f"session {checkpoint.session + 1} of {most}, from {checkpoint.words}"


def _first_session(kept: KeptBundle) -> KeptBundle:
    """The bundle that a person would have been shown: a later session's is made from it."""
    try:
        return keep(session_of(kept, None))
    except (ValueError, KeyError, TypeError):
        # Taken over from the target without its metadata, or of a kchain that knew no sessions.
        return kept


def _changes(folders: BundleFolders, phase: str, last: KeptBundle | None) -> list[str]:
    from kchain.bundle import diff

    bundle = folders.rendered(phase)
    last = None if last is None else _first_session(last)
    old = None if last is None else json.loads(last.notebook)
    before = [] if last is None else json.dumps(json.loads(last.metadata), indent=1, sort_keys=True).splitlines()
    after = json.dumps(bundle.metadata, indent=1, sort_keys=True).splitlines()
    metadata = (
        list(difflib.unified_diff(before, after, METADATA_FILE, METADATA_FILE, lineterm="")) if last is not None else []
    )
    return [*metadata, *diff(old, bundle.notebook)]
