"""`kchain watch`: drive the chain on from wherever it is, phase after phase."""

from __future__ import annotations

from collections.abc import Mapping

from kchain.orchestrator.actions import Wait, Wish
from kchain.orchestrator.drive import Driver, Ports, driving
from kchain.orchestrator.push import prepare
from kchain.orchestrator.report import FINISHED, Reporter, state_word
from kchain.orchestrator.state import PhaseState
from kchain.orchestrator.target import Target
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
        for phase in chain.phases:
            _finish(driver, phase.name, yes=yes)
            action = driver.drive(phase.name, Wish.FINISH, wait=not once)
            if isinstance(action, Wait):
                reporter.waiting(phase.name, action.reason)
                break
        return driver.states()


def _finish(driver: Driver, phase: str, *, yes: bool) -> None:
    """Have ready what a push of this phase would need, if it is going to be pushed at all."""
    states = driver.states()
    if state_word(driver.chain, states, phase) not in FINISHED:
        prepare(driver, phase, approve=yes)
