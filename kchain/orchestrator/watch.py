"""`kchain watch`: drive the chain on from wherever it is, phase after phase."""

from __future__ import annotations

from collections.abc import Mapping

from kchain.client.target import Target
from kchain.orchestrator.driving.actions import Reporter, Wait, Wish
from kchain.orchestrator.driving.drive import Ports, driving
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
        states = driver.states()
        words = {phase.name: state_word(chain, states, phase.name) for phase in chain.phases}
        to_push = [driver.folders[name] for name, word in words.items() if word in ("new", "reviewed", "stale")]
        if not yes:
            # Said now, not hours later: where the chain is going to stop.
            for folder in to_push:
                if folder.rendered.hash not in states.get(folder.phase, PhaseState()).reviewed:
                    text = f"not reviewed as it is now: the chain stops before it (kchain review {folder.phase})"
                    reporter.note(folder.phase, text)
                    break
        tell_unrehearsed(chain, target, to_push, reporter)
        for phase in chain.phases:
            if state_word(chain, driver.states(), phase.name) not in FINISHED:
                prepare(driver, driver.folders[phase.name], approve=yes)
            action = driver.drive(phase.name, Wish.FINISH, wait=not once)
            if isinstance(action, Wait):
                reporter.waiting(phase.name, action.reason)
                break
        return driver.states()
