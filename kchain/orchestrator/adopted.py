"""Adapters trained elsewhere, as rendering needs them. Reads the journal only."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kchain.orchestrator.journal import Key, read_states
from kchain.orchestrator.state import PhaseState
from kchain.phases import CHAIN_FILE, Chain

if TYPE_CHECKING:
    from kchain.bundle import AdapterSource


def adopted_sources(chain: Chain, states: Mapping[str, PhaseState]) -> dict[str, AdapterSource]:
    """The adopted phases of a chain, each with where its adapter is mounted from and what it must be."""
    return _sources(states, {phase.name for phase in chain.phases})


def adopted(root: Path, target: str) -> dict[str, AdapterSource]:
    """The adopted phases of the project in `root` on a target; empty without a journal.

    Raises:
        InputError: the journal is damaged.
    """
    table = tomllib.loads((root / CHAIN_FILE).read_text(encoding="utf-8"))["chain"]
    return _sources(read_states(root, Key(target, table["owner"], table["name"])), None)


def _sources(states: Mapping[str, PhaseState], phases: set[str] | None) -> dict[str, AdapterSource]:
    taken = {
        phase: state.result
        for phase, state in states.items()
        if state.result is not None and state.result.adopted and (phases is None or phase in phases)
    }
    if not taken:
        return {}
    from kchain.bundle import AdapterSource

    return {
        phase: AdapterSource(
            phase=phase,
            kind="dataset" if result.kind == "dataset" else "kernel",
            ref=result.ref,
            folder=result.source_folder,
            sha256=result.sha256,
        )
        for phase, result in taken.items()
    }
