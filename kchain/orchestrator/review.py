"""`kchain review`: what would be pushed, and what changed since the last push. Showing it is what makes it reviewed."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kchain.client.target import Target
from kchain.kernel_metadata import METADATA_FILE
from kchain.orchestrator.driving.folders import BundleFolder, bundle_folders, keep, rehearsals, session_of
from kchain.orchestrator.journal.journal import Journal, KeptBundle, Key
from kchain.orchestrator.journal.state import PhaseState
from kchain.phases import Chain
from kchain.phases.plan import TrainingPlan, UsePlan, plan_of

if TYPE_CHECKING:
    from kchain.bundle import Bundle
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
        rehearsed: seconds since the epoch at which this code ran to its end in a rehearsal; None: it never did.
    """

    phase: str
    kernel: str
    folder: Path
    hash: str
    plan: TrainingPlan | UsePlan
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
        folders, times = bundle_folders(chain, target, states), rehearsals(chain)
        return [_review(chain, folders[each], journal, states.get(each, PhaseState()), times) for each in phases]


def record(chain: Chain, target: Target, reviews: list[Review]) -> None:
    """Remember that a person was shown these bundles."""
    with Journal(chain.root, Key(target.name, chain.owner, chain.name)) as journal:
        for shown in reviews:
            if not shown.known:
                journal.append(shown.phase, "reviewed", hash=shown.hash)


def _review(
    chain: Chain,
    folder: BundleFolder,
    journal: Journal,
    state: PhaseState,
    rehearsed: Mapping[tuple[str, str], float],
) -> Review:
    from kchain.bundle.lint import lint

    phase, bundle, version = folder.phase, folder.write(), state.version
    last = journal.kept(version.hash) if version is not None else None
    goes_on = ""
    if version is not None and state.checkpoint is not None:
        same = bundle.hash == version.approved
        most = version.max_sessions if same else chain.phase(phase).training.max_sessions
        if state.checkpoint.session < most and (same or folder.same_training(last)):
            goes_on = f"session {state.checkpoint.session + 1} of {most}, from {state.checkpoint.words}"
    waits = state.failure is not None and state.failure.hash == bundle.hash and not state.failure.again
    return Review(
        phase=phase,
        kernel=chain.kernel(phase),
        folder=folder.path,
        hash=bundle.hash,
        plan=plan_of(chain, phase),
        metadata=bundle.metadata,
        pushed=version.number if version is not None else None,
        changes=tuple(_changes(bundle, last)),
        findings=tuple(lint(folder.path)),
        known=bundle.hash in state.reviewed and not (waits and goes_on),
        goes_on=goes_on,
        rehearsed=rehearsed.get((phase, bundle.code_hash)),
    )


def _changes(bundle: Bundle, last: KeptBundle | None) -> list[str]:
    """The diff of metadata and notebook, against the bundle that a person was shown of the last version."""
    from kchain.bundle import cell_diff

    if last is None:
        return list(cell_diff(None, bundle.notebook))
    # Taken over from the target without its metadata, or of a kchain that knew no sessions: it is compared as it is.
    with suppress(ValueError, KeyError, TypeError):
        last = keep(session_of(last, None))
    before = json.dumps(json.loads(last.metadata), indent=1, sort_keys=True).splitlines()
    after = json.dumps(bundle.metadata, indent=1, sort_keys=True).splitlines()
    metadata = difflib.unified_diff(before, after, METADATA_FILE, METADATA_FILE, lineterm="")
    return [*metadata, *cell_diff(json.loads(last.notebook), bundle.notebook)]
