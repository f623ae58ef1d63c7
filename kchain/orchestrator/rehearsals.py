"""Which code was rehearsed, and when: events of a target of their own in the project's journal.

A rehearsal has a journal of its own for its runs. What is written here is that one of them came to its end, by the code
hash of its notebook: equal for every bundle that runs the same code, whatever its parameters and its target.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kchain.orchestrator.actions import Reporter
from kchain.orchestrator.folders import BundleFolders
from kchain.orchestrator.journal import JOURNAL, Journal, Key
from kchain.orchestrator.target import Target
from kchain.phases import Chain

# Takes the place of a target's name; no target can be called that.
REHEARSAL = "rehearsal"
_KIND = "rehearsed"


def record(chain: Chain, phase: str, code_hash: str) -> None:
    """Remember that a phase's code came to its end here."""
    with Journal(chain.root, _key(chain)) as journal:
        journal.append(phase, _KIND, code=code_hash)


def rehearsals(chain: Chain) -> Mapping[tuple[str, str], float]:
    """(phase, code hash) of all that was rehearsed, with the last time of each in seconds since the epoch."""
    if not (chain.root / JOURNAL).exists():
        return {}
    with Journal(chain.root, _key(chain)) as journal:
        return {(entry.phase, str(entry.detail.get("code"))): entry.time for entry in journal.entries()}


def unrehearsed(chain: Chain, target: Target, folders: BundleFolders, phases: Iterable[str]) -> Mapping[str, str]:
    """A warning for each phase that is about to cost quota and whose code never ran here."""
    if not target.is_kaggle:
        return {}
    known = rehearsals(chain)
    return {
        phase: f"never rehearsed as it is now; in minutes and without quota: kchain rehearse {phase}"
        for phase in phases
        if (phase, folders.rendered(phase).code_hash) not in known
    }


def tell_unrehearsed(
    chain: Chain, target: Target, folders: BundleFolders, reporter: Reporter, phases: Iterable[str]
) -> None:
    """Tell these warnings."""
    for phase, warning in unrehearsed(chain, target, folders, phases).items():
        reporter.note(phase, warning)


def _key(chain: Chain) -> Key:
    return Key(REHEARSAL, chain.owner, chain.name)
