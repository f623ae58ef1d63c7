"""What ends a rehearsal before it begins, and who is warned of a push that no rehearsal came before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import kchain.demo.project
from kchain.client.target import Target
from kchain.errors import DriverLocked, InputError
from kchain.orchestrator.driving.folders import bundle_folders, record_rehearsal, rehearsals, tell_unrehearsed
from kchain.orchestrator.journal.lock import driver_lock
from kchain.phases import Chain, load_chain
from kchain.phases.init import make_project
from kchain.rehearse.run import AREA, rehearse


class Listener:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, str]] = []

    def note(self, phase: str, text: str) -> None:
        self.notes.append((phase, text))

    def waiting(self, phase: str, text: str) -> None:
        """Nobody looks."""

    def event(self, phase: str, event: Mapping[str, Any]) -> None:
        """Nobody looks."""


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    make_project(tmp_path, "qwen-t4", "someone")
    return load_chain(tmp_path)


def test_missing_packages_are_named_before_anything_is_written(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kchain.demo.project, "NEEDED", ("json", "kchain_no_such_package"))
    with pytest.raises(InputError, match="kchain_no_such_package") as error:
        rehearse(chain, ["phase1"], Listener())
    assert error.value.hint == 'pip install "kchain[train]"'
    assert not (chain.root / ".kchain").exists()


def test_an_unknown_phase_is_told(chain: Chain) -> None:
    with pytest.raises(InputError, match="no phase 'phase9'"):
        rehearse(chain, ["phase9"], Listener())


def test_a_second_rehearsal_waits_for_nobody(chain: Chain) -> None:
    with driver_lock(chain.root / AREA), pytest.raises(DriverLocked, match="another kchain"):
        rehearse(chain, ["phase1"], Listener())


def warned(chain: Chain, target: str, *phases: str) -> list[str]:
    place, listener = Target(target, chain.owner, chain.root), Listener()
    folders = bundle_folders(chain, place, {})
    tell_unrehearsed(chain, place, [folders[phase] for phase in phases], listener)
    return [phase for phase, _ in listener.notes]


def test_only_what_was_never_rehearsed_is_warned_of_and_only_where_it_costs_quota(chain: Chain) -> None:
    assert warned(chain, "kaggle", "phase1", "phase2") == ["phase1", "phase2"]
    assert warned(chain, "local", "phase1") == []
    code = bundle_folders(chain, Target("kaggle", chain.owner, chain.root), {})["phase1"].rendered.code_hash
    record_rehearsal(chain, "phase1", code)
    assert warned(chain, "kaggle", "phase1", "phase2") == ["phase2"]
    assert set(rehearsals(chain)) == {("phase1", code)}


def test_other_code_is_not_what_was_rehearsed(chain: Chain) -> None:
    record_rehearsal(chain, "phase1", "0" * 64)
    assert warned(chain, "kaggle", "phase1") == ["phase1"]


def test_looking_for_rehearsals_makes_no_journal(chain: Chain) -> None:
    assert rehearsals(chain) == {}
    assert not (chain.root / ".kchain").exists()
