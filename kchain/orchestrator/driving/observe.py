"""One look at a phase: what the target and the disk say now. Reads only; a failed read is told as such."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kchain.errors import Unreachable
from kchain.orchestrator.driving.actions import Observation, Parent, Wish
from kchain.orchestrator.driving.continuation import next_session
from kchain.orchestrator.driving.decide import Need, need
from kchain.orchestrator.driving.folders import BundleFolder
from kchain.orchestrator.journal.journal import Journal
from kchain.orchestrator.journal.state import Intent, PhaseState, is_stale
from kchain.phases import Chain

if TYPE_CHECKING:
    from kchain.client.client import Client


class Observer:
    """Observes the phases of one chain.

    Args:
        settle: the target's settling time, seconds.
    """

    def __init__(self, chain: Chain, journal: Journal, settle: float) -> None:
        self._chain = chain
        self._journal = journal
        self._settle = settle

    def at_hand(self, folder: BundleFolder, states: Mapping[str, PhaseState], wish: Wish, now: float) -> Observation:
        """What is known of a phase without asking the target."""
        phase = self._chain.phase(folder.phase)
        state = states.get(phase.name, PhaseState())
        stale = is_stale(self._chain, states, phase.name)
        seen = Observation(
            time=now,
            settle=self._settle,
            bundle=folder.rendered.hash if wish is not Wish.FINISH or state.result is None or stale else "",
            gates=phase.gates.model_dump_json(),
            stale=stale,
            max_sessions=phase.training.max_sessions,
        )
        if state.checkpoint is None or state.version is None:
            return seen
        dataset = f"{self._chain.owner}/{self._chain.name}-{phase.name}-checkpoint"
        return replace(
            seen,
            continuation=next_session(states, phase.name, self._chain.kernel(phase.name), dataset),
            same_training=folder.same_training(self._journal.kept(state.version.hash)),
        )

    def look(
        self,
        connect: Callable[[], Client],
        folder: BundleFolder,
        states: Mapping[str, PhaseState],
        wish: Wish,
        seen: Observation,
    ) -> Observation:
        """`seen` with everything the next decision depends on.

        Raises:
            Unreachable: a read failed; nothing may be concluded from that.
        """
        state = states.get(folder.phase, PhaseState())
        ref = self._chain.kernel(folder.phase)
        match need(state, seen, wish):
            case Need.NOTHING:
                return seen
            case Need.OUTCOME:
                assert state.intent is not None
                return self._outcome(connect(), ref, state.intent, seen)
            case Need.STATUS:
                assert state.version is not None
                return _status(connect(), ref, state.version.number, seen)
            case Need.KERNEL:
                return self._before_push(connect(), folder, states, seen)

    def _outcome(self, client: Client, ref: str, intent: Intent, seen: Observation) -> Observation:
        """Is one of the versions since the intent ours? It may lie under someone's later edit: look at each."""
        current = client.kernel(ref)
        if current is None:
            return seen
        kept = self._journal.kept(intent.hash)
        ours = None
        for number in range(current.version, intent.before or 0, -1):
            kernel = current if number == current.version else client.kernel(ref, number)
            if kernel is None:
                raise Unreachable(
                    f"version {number} of {ref} cannot be read", "repeat the command: it continues from here"
                )
            if kept is not None and is_notebook(kernel.source, json.loads(kept.notebook)):
                ours = number
        return replace(seen, kernel=current.version, ours=ours)

    def _before_push(
        self, client: Client, folder: BundleFolder, states: Mapping[str, PhaseState], seen: Observation
    ) -> Observation:
        ref = self._chain.kernel(folder.phase)
        current = client.kernel(ref)
        seen = replace(
            seen,
            disk=folder.disk_hash(),
            lint=folder.lint(),
            parents=tuple(self._parent(client, parent.name, states) for parent in self._chain.lineage(folder.phase)),
        )
        if seen.continuation is not None and seen.continuation.kind == "dataset":
            seen = replace(seen, dataset=client.dataset_status(seen.continuation.ref))
        if current is None:
            return seen
        status = client.status(ref)
        same = folder.recognised(current.source) is not None
        return replace(
            seen,
            kernel=current.version,
            current_hash=seen.bundle if same else None,
            word=status.word,
            failure=status.failure or "",
        )

    def _parent(self, client: Client, phase: str, states: Mapping[str, PhaseState]) -> Parent:
        result = states.get(phase, PhaseState()).result
        if result is None or is_stale(self._chain, states, phase):
            return Parent(phase, ready=False, source=self._chain.kernel(phase), verified=None, current=None)
        if result.kind == "dataset":
            current: int | None = client.dataset_version(result.ref)
        else:
            kernel = client.kernel(result.ref)
            current = None if kernel is None else kernel.version
        return Parent(phase, ready=True, source=result.ref, verified=result.version, current=current)


def _status(client: Client, ref: str, version: int, seen: Observation) -> Observation:
    from kchain.client.refusals import Absent

    try:
        status = client.status(ref, version)
    except Absent:
        kernel = client.kernel(ref)
        if kernel is None:
            return replace(seen, kernel=None)
        raise
    return replace(seen, word=status.word, failure=status.failure or "", kernel=version)


def is_notebook(source: str, notebook: Mapping[str, Any]) -> bool:
    """Whether a kernel's source is this notebook: the same cells with the same text, BUNDLE included.

    Outputs, ids and notebook metadata do not count: the client and the target rewrite them.
    """
    from kchain.bundle import same_cells

    try:
        return same_cells(json.loads(source), notebook)
    except (ValueError, KeyError, TypeError):
        return False
