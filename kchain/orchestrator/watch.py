"""`kchain watch`: drive the chain on from wherever it is, phase after phase."""

from __future__ import annotations

from collections.abc import Mapping

from kchain.client.target import Target
from kchain.orchestrator.driving.actions import Reporter, Wait, Wish
from kchain.orchestrator.driving.drive import Driver, Ports, driving
from kchain.orchestrator.driving.folders import tell_unrehearsed
from kchain.orchestrator.journal.state import PhaseState
from kchain.orchestrator.push import prepare
from kchain.orchestrator.status import FINISHED, state_word
from kchain.phases import Chain


def watch(
    chain: Chain,
    target: Target,
    reporter: Reporter,
    *,
    yes: bool = False,
    once: bool = False,
    ports: Ports | None = None,
) -> Mapping[str, PhaseState]:
    """Finish every phase, parents first; one session at a time.

    Args:
        yes: approve every unfinished phase as it renders now.
        once: do what can be done now and return at the first thing that has to be waited for.

    Returns:
        The states at the end.

    Raises:
        KchainError: the chain stops there; the phases after it were not pushed.
    """
    with driving(chain, target, reporter, ports) as driver:
        if not yes:
            _tell_unreviewed(driver, reporter)
        tell_unrehearsed(chain, target, driver.folders, reporter, _to_push(driver))
        for phase in chain.phases:
            _have_ready(driver, phase.name, yes=yes)
            action = driver.drive(phase.name, Wish.FINISH, wait=not once)
            if isinstance(action, Wait):
                reporter.waiting(phase.name, action.reason)
                break
        return driver.states()


def _tell_unreviewed(driver: Driver, reporter: Reporter) -> None:
    """Say now where the chain is going to stop, not hours later."""
    states = driver.states()
    for phase in _to_push(driver):
        if driver.folders.rendered(phase).hash not in states.get(phase, PhaseState()).reviewed:
            reporter.note(phase, f"not reviewed as it is now: the chain stops before it (kchain review {phase})")
            return


def _to_push(driver: Driver) -> list[str]:
    """The phases that are still to be pushed."""
    states = driver.states()
    words = {phase.name: state_word(driver.chain, states, phase.name) for phase in driver.chain.phases}
    return [phase for phase, word in words.items() if word in ("new", "reviewed", "stale")]


def _have_ready(driver: Driver, phase: str, *, yes: bool) -> None:
    """Have ready what a push of this phase would need, if it is going to be pushed at all."""
    states = driver.states()
    if state_word(driver.chain, states, phase) not in FINISHED:
        prepare(driver, phase, approve=yes)
