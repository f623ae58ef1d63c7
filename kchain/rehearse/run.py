"""The rehearsal itself: stand-ins published, phases driven one after the other by the very driver that drives Kaggle.

Everything is in `.kchain/rehearsal/work/` of the project: a folder like a project's, with bundles, journal, results
and a server of its own, to which the tiny model and the data are published.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from kchain.bundle import adapter_sources, build
from kchain.client.target import KAGGLE, LOCAL, Target
from kchain.demo.project import check_packages
from kchain.errors import KchainError, PhaseFailed
from kchain.orchestrator.driving.actions import Reporter, Wish
from kchain.orchestrator.driving.drive import Driver, driving
from kchain.orchestrator.driving.folders import record_rehearsal, rehearsals
from kchain.orchestrator.journal.lock import driver_lock
from kchain.orchestrator.journal.state import PhaseFailure, PhaseState, Result
from kchain.orchestrator.judging.result import read_result
from kchain.orchestrator.push import prepare
from kchain.phases import Chain
from kchain.rehearse.model import Base, find_base, fingerprint, write_stand_in
from kchain.rehearse.rows import publish, stand_ins
from kchain.rehearse.settings import Difference, Stand, differences, rehearsed_chain
from kchain.runtime.contract import LOG
from kchain.server import launch
from kchain.server.publish import publish_model
from kchain.templates import parameters_of_phase

AREA = Path(".kchain") / "rehearsal"
# Inherited by every session: nothing is fetched unasked.
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_EDITION = "stand-in.txt"


@dataclass(frozen=True)
class Rehearsed:
    """The outcome of one phase.

    Attributes:
        fresh: it ran now; else it had come to its end before, and nothing has changed since.
        code_hash: of its notebook, here and as it will be pushed.
        differences: parameters that are others than in the notebook that will be pushed.
        result: None where it failed, or was not reached.
        failure: why it failed.
        skipped: optional sources that the run did without, each with the reason.
    """

    phase: str
    fresh: bool
    code_hash: str
    differences: tuple[Difference, ...]
    result: Result | None = None
    failure: PhaseFailure | None = None
    skipped: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Rehearsal:
    """A rehearsal up to its end, or to the first phase that failed.

    Attributes:
        chain: as it will be pushed.
        names: every phase that was to be rehearsed; `outcomes` may end before the last.
        work: the folder of the runs.
    """

    chain: Chain
    names: tuple[str, ...]
    base: Base
    stands: tuple[Stand, ...]
    outcomes: tuple[Rehearsed, ...]
    work: Path

    def error(self) -> KchainError | None:
        """The failure as an error with the next thing to try; None: nothing failed."""
        for outcome in self.outcomes:
            if outcome.failure is not None:
                phase, failure = outcome.phase, outcome.failure
                # The same sentence and advice as on Kaggle, with what to do after a rehearsal.
                log = self.work / "runs" / LOCAL / phase / f"v{failure.version}" / LOG
                hint = f"{failure.hint}\n" if failure.hint else ""
                hint += f"its log: {log}\n" if log.is_file() else ""
                return PhaseFailed(
                    f"in the rehearsal, {failure.reason}", f"{hint}after a change: kchain rehearse {phase}"
                )
        return None


def rehearse(
    chain: Chain, phases: Iterable[str], reporter: Reporter, *, tokenizer: Path | None = None, again: bool = False
) -> Rehearsal:
    """Rehearse phases, after those that they build on; what has not changed since the last time is left alone.

    Args:
        phases: names; none for the whole chain.
        tokenizer: folder of the base model's tokenizer.
        again: rehearse the phases that are named once more, changed or not.

    Raises:
        InputError: packages, files or columns are missing.
        DriverLocked: another rehearsal of this project runs.
        Unreachable: the server of this machine does not answer.
    """
    wanted = [chain.phase(name).name for name in phases] or [phase.name for phase in chain.phases]
    names = with_ancestors(chain, wanted)
    check_packages()
    base, prepared = find_base(chain, tokenizer), stand_ins(chain, names)
    area = chain.root / AREA
    with driver_lock(area):
        work = _work_folder(area, chain, base)
        stands = tuple(each.stand for each in prepared)
        small = rehearsed_chain(chain, work, stands, names)
        outcomes = _compare(chain, small)
        target = Target(LOCAL, chain.owner, work)
        publish(target.local_root, prepared)
        # As strict as Kaggle where the chain is for Kaggle.
        profile = "like-kaggle" if chain.target == KAGGLE else "machine"
        with launch.held(target.local_root, profile, OFFLINE), driving(small, target, reporter) as driver:
            done: list[Rehearsed] = []
            for outcome in outcomes:
                done.append(_phase(driver, outcome, once_more=again and outcome.phase in wanted))
                if done[-1].failure is not None:
                    break
                if done[-1].fresh or (outcome.phase, outcome.code_hash) not in rehearsals(chain):
                    record_rehearsal(chain, outcome.phase, outcome.code_hash)
    return Rehearsal(chain, tuple(names), base, stands, tuple(done), work)


def with_ancestors(chain: Chain, names: Iterable[str]) -> list[str]:
    """These phases and all that they build on, in the order of the chain."""
    needed: set[str] = set()
    for name in names:
        while name not in needed:
            needed.add(name)
            name = chain.phase(name).after or name
    return [phase.name for phase in chain.phases if phase.name in needed]


def _compare(chain: Chain, small: Chain) -> list[Rehearsed]:
    """The phases with what differs from the real notebooks.

    Raises:
        KchainError: a notebook of the rehearsal would run other code than the real one.
    """
    outcomes = []
    for phase in small.phases:
        real, here = build(chain, phase.name, chain.target, {}), build(small, phase.name, small.target, {})
        if real.code_hash != here.code_hash:
            raise KchainError(
                f"the rehearsal of {phase.name} would run other code than the notebook that is pushed",
                "this is a mistake in kchain; please report it with the phase's file",
            )
        told = (
            parameters_of_phase(each, phase.name, each.target, adapter_sources(each, phase.name, {}))
            for each in (chain, small)
        )
        outcomes.append(Rehearsed(phase.name, False, real.code_hash, differences(*told)))
    return outcomes


def _work_folder(area: Path, chain: Chain, base: Base) -> Path:
    """The folder of the runs; a fresh one with a fresh model where the model would be another one than theirs."""
    trained = sorted({token for phase in chain.phases for token in phase.tokens.trained})
    work, edition = area / "work", fingerprint(base, chain.model, trained)
    try:
        is_same = (work / _EDITION).read_text(encoding="utf-8") == edition
    except OSError:
        is_same = False
    if not is_same:
        server_root = Target(LOCAL, chain.owner, work).local_root
        launch.stop(server_root)
        shutil.rmtree(work, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="kchain-rehearsal-") as folder:
            write_stand_in(Path(folder), base, chain.model, trained)
            publish_model(server_root, chain.model.source, Path(folder))
        (work / _EDITION).write_text(edition, encoding="utf-8")
    return work


def _phase(driver: Driver, outcome: Rehearsed, *, once_more: bool) -> Rehearsed:
    phase = outcome.phase
    before = driver.states().get(phase, PhaseState())
    # A run that failed, or that an earlier rehearsal did not see the end of, is repeated.
    wish = Wish.PUSH if before.result is not None and before.intent is None and not once_more else Wish.AGAIN
    prepare(driver, driver.folders[phase], approve=True)
    failure = None
    try:
        driver.drive(phase, wish)
    except PhaseFailed:
        failure = driver.states()[phase].failure
        if failure is None:
            raise
    after = driver.states()[phase]
    fresh = after.result != before.result
    # The sources that the run did without, as its result file beside the adapter tells.
    told = read_result((driver.chain.root / after.result.folder).parent) if after.result is not None else None
    sources = told.examples.sources if told is not None else []
    skipped = tuple((source.name, source.error) for source in sources if source.error)
    return replace(outcome, fresh=fresh, result=after.result, failure=failure, skipped=skipped)
