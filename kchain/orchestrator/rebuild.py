"""What a lost journal knew of a phase, from the phase's own kernel: its last version, and the checkpoint under it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kchain.errors import InputError, KchainError, NotNow, PhaseFailed
from kchain.kernel_metadata import Continuation
from kchain.orchestrator.decide import LIVE
from kchain.orchestrator.drive import Driver
from kchain.orchestrator.journal import KeptBundle
from kchain.orchestrator.judge import read_result
from kchain.orchestrator.state import PhaseState, lineage, rows, run_event

if TYPE_CHECKING:
    from kchain.orchestrator.answers import Kernel


def rebuild(driver: Driver, phase: str) -> None:
    """Record the current version of a phase's kernel as if it had been pushed and followed from here.

    Raises:
        InputError: the kernel is not one that kchain pushed.
        NotNow: it runs.
        PhaseFailed: it failed; the journal says why.
    """
    ref = driver.chain.kernel(phase)
    kernel = driver.client().kernel(ref)
    if kernel is None or _hash(kernel) is None:
        raise InputError(f"kernel {ref} is not one that kchain pushed", f"kchain push {phase}")
    word = driver.client().status(ref, kernel.version).word
    if word in LIVE:
        raise NotNow(f"{ref} version {kernel.version} is {word.lower()}", "adopt it when it has ended")
    taken = _Taken(driver, phase)
    continues = _continues(kernel.source)
    if continues is not None and taken.fetch(kernel.version).get("status") not in ("complete", "partial"):
        # It reached nothing itself: what it was to go on from still counts.
        taken.take_checkpoint(continues, kernel.version)
    taken.take(kernel)
    driver.judge(phase)


def unfinished(phase: str, state: PhaseState) -> KchainError:
    """What is said of a phase whose own kernel was taken over and has no result yet."""
    if state.checkpoint is None or state.version is None:
        return PhaseFailed(
            f"the last session of {phase} found no checkpoint to go on from",
            f"from the beginning: kchain push {phase} --again",
        )
    checkpoint = state.checkpoint
    return NotNow(
        f"{phase} is known again, and not finished: session {checkpoint.session} of {state.version.max_sessions} "
        f"ended at {checkpoint.words}",
        "its next session goes on from there: kchain watch",
    )


class _Taken:
    def __init__(self, driver: Driver, phase: str) -> None:
        self._driver = driver
        self._phase = phase
        self._ref = driver.chain.kernel(phase)
        self._runs = Path("runs") / driver.target.folder / phase

    def fetch(self, version: int) -> dict[str, Any]:
        """The outputs of a version, in its folder; its result file, {} without one."""
        folder = self._driver.chain.root / self._runs / f"v{version}"
        self._driver.fetch(self._ref, version, folder)
        return read_result(folder) or {}

    def take(self, kernel: Kernel) -> None:
        """Record a version as pushed, ended and fetched."""
        result = self.fetch(kernel.version)
        status = self._driver.client().status(self._ref, kernel.version)
        kept, run = self._known(kernel)
        self._driver.journal.append(
            self._phase,
            "pushed",
            kept=kept,
            version=kernel.version,
            url="",
            invalid=[],
            found=True,
            hash=kept.hash,
            lineage=rows(lineage(result.get("lineage") or [])),
            resend=False,
            **run,
        )
        self._driver.journal.append(self._phase, "ended", word=status.word, failure=status.failure or "")
        folder = self._runs / f"v{kernel.version}"
        self._driver.journal.append(self._phase, "pulled", folder=folder.as_posix())

    def take_checkpoint(self, continues: Continuation, before: int) -> None:
        """Record the newest version before that one which left the checkpoint, where there is one."""
        for number in range(before - 1, 0, -1):
            kernel = self._driver.client().kernel(self._ref, number)
            if kernel is None or _hash(kernel) is None or _session(kernel.source) != continues.session - 1:
                continue
            said = self.fetch(number).get("checkpoint")
            if isinstance(said, dict) and said.get("sha256") == continues.sha256:
                # The answer names the kernel's current version, whichever was asked for.
                self.take(type(kernel)(number, kernel.source))
                self._driver.judge(self._phase)
                return

    def _known(self, kernel: Kernel) -> tuple[KeptBundle, dict[str, Any]]:
        """The bundle of a version as it is kept, and the run that it belongs to.

        The metadata that was pushed is not what the target gives back, the notebook is: only a bundle that renders as
        it did then can be gone on from.
        """
        folders, chain = self._driver.folders, self._driver.chain
        if (recognised := folders.recognised(self._phase, kernel.source)) is not None:
            kept, continues = recognised
            sessions = chain.phase(self._phase).training.max_sessions
            return kept, run_event(continues, folders.rendered(self._phase).hash, sessions)
        found = str(_hash(kernel))
        return KeptBundle(found, "{}", kernel.source), run_event(
            _continues(kernel.source), found, _session(kernel.source)
        )


def _hash(kernel: Kernel) -> str | None:
    from kchain.bundle import find_hash

    return find_hash(kernel.source)


def _continues(source: str) -> Continuation | None:
    from kchain.bundle import continuation_of

    try:
        return continuation_of(json.loads(source))
    except (ValueError, TypeError):
        # Pushed by a kchain that knew no sessions, or changed since.
        return None


def _session(source: str) -> int:
    continues = _continues(source)
    return 1 if continues is None else continues.session
