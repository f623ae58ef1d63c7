"""One file trained: reviewed, uploaded if it is large, and driven to its end by the driver that drives every phase."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.client.target import Target
from kchain.errors import GateMissed, KchainError, NotReviewed, PhaseFailed
from kchain.inbox.box import InboxJob
from kchain.inbox.examples import Rejection, Run
from kchain.orchestrator.driving.actions import Reporter, Wish
from kchain.orchestrator.driving.drive import Driver, Ports, driving, wait_until_ready
from kchain.orchestrator.driving.folders import BundleFolder, bundle_folders
from kchain.orchestrator.journal.journal import Journal, Key
from kchain.orchestrator.journal.state import PhaseFailure, PhaseState, Result, is_stale
from kchain.orchestrator.push import prepare
from kchain.phases import Chain
from kchain.runtime.contract import LOG
from kchain.units import size

_PUT_BACK = "to try again, put the file into inbox/ again; changed gates are then applied to the same run"
# Commands for phases, which the run of a file is not.
_COMMANDS = re.compile(r"\bkchain (push|watch|review|logs|pull|adopt)\b")


@dataclass(frozen=True)
class Named:
    """A reporter that calls the run of a file by the file's name."""

    reporter: Reporter
    name: str

    def note(self, phase: str, text: str) -> None:
        self.reporter.note(self.name, text.removeprefix(f"{phase} "))

    def waiting(self, phase: str, text: str) -> None:
        self.reporter.waiting(self.name, text.replace(f"{phase} ", "", 1))

    def event(self, phase: str, event: Mapping[str, Any]) -> None:
        self.reporter.event(self.name, event)


def look_back(run: Run, target: Target, job: InboxJob) -> InboxJob:
    """Write into the job, once, what the journal knows of earlier runs of the same content."""
    if job.since is not None:
        return job
    chain = run.chain
    with Journal(chain.root, Key(target.name, chain.owner, chain.name)) as journal:
        states = journal.states()
        state = states.get(run.name, PhaseState())
        kept = journal.kept(state.version.hash) if state.version is not None else None
    folder = bundle_folders(chain, target, states)[run.name]
    since = state.version.number if state.version is not None else 0
    if state.result is not None:
        counts = not is_stale(chain, states, run.name) and folder.same_training(kept)
        return job.looked(0 if counts else since, again=not counts, already=counts)
    if state.failure is not None and not _asks_other_gates(run, folder, state.failure):
        return job.looked(since, again=True, already=False)
    # There is none, or it is still under way, or to be judged by other gates: then it is this job's.
    return job.looked(0, again=False, already=False)


def _asks_other_gates(run: Run, folder: BundleFolder, failure: PhaseFailure) -> bool:
    """Whether the gates that a run missed have been changed since; applying the new ones needs no new run."""
    same = failure.error == GateMissed.__name__ and failure.hash == folder.rendered.hash
    return same and failure.gates != run.chain.phase(run.name).gates.model_dump_json()


def has_begun(job: InboxJob, state: PhaseState) -> bool:
    """Whether the job's own run is on its way, or over."""
    if state.intent is not None or job.already:
        return True
    return state.version is not None and state.version.number > (job.since or 0)


def train(
    run: Run, target: Target, job: InboxJob, lines: Path, reporter: Reporter, ports: Ports | None
) -> Result | Rejection:
    """Bring the run of a file to its end, from wherever it is.

    Args:
        lines: the rows of the file as they travel.

    Raises:
        NotReviewed: the phase was not reviewed as it is now.
        NotNow, Unreachable: the run resumes from where it is another time.
        KchainError: only a person can go on from here.
    """
    with driving(run.chain, target, Named(reporter, job.name), ports) as driver:
        before = driver.states().get(run.name, PhaseState()).failure
        if not _is_over(driver, run, job):
            try:
                _drive(driver, run, job, lines, reporter)
            except (PhaseFailed, NotReviewed) as error:
                failure = driver.states().get(run.name, PhaseState()).failure
                if failure is None or (job.again and failure == before):
                    raise _without_phase(error, run.name) from None
        state = driver.states()[run.name]
        if state.failure is not None:
            return _rejection(run.chain, state)
        assert state.result is not None, "a phase that is done has a result"
        _have_files(driver, run, state.result)
        shutil.rmtree(driver.folders[run.name].path, ignore_errors=True)
        return state.result


def _is_over(driver: Driver, run: Run, job: InboxJob) -> bool:
    """Whether the job's run has come to its end, whatever its phase file says by now."""
    state = driver.states().get(run.name, PhaseState())
    failed = state.failure is not None and not _asks_other_gates(run, driver.folders[run.name], state.failure)
    return has_begun(job, state) and (failed or state.result is not None)


def _drive(driver: Driver, run: Run, job: InboxJob, lines: Path, reporter: Reporter) -> None:
    wish = _get_ready(driver, run, job, lines, reporter)
    try:
        driver.drive(run.name, wish)
    except NotReviewed:
        # Its push was about to be sent and never was, and the phase file has changed since.
        if _is_over(driver, run, job):
            raise
        driver.drive(run.name, _get_ready(driver, run, job, lines, reporter))


def _get_ready(driver: Driver, run: Run, job: InboxJob, lines: Path, reporter: Reporter) -> Wish:
    """Have ready what the push of a new run needs."""
    states = driver.states()
    if has_begun(job, states.get(run.name, PhaseState())):
        return Wish.FINISH
    require_review(driver.folders[job.phase], states)
    prepare(driver, driver.folders[run.name], approve=True)
    _have_data_set(driver, run, lines, reporter, job.name)
    return Wish.AGAIN if job.again else Wish.FINISH


def _without_phase(error: KchainError, name: str) -> KchainError:
    """The error without advice that names the run of a file: no command knows a phase of that name."""
    if name not in error.hint:
        return error
    cure = "look at it on the target; the file stays in inbox/; run the same command again to continue"
    return type(error)(error.message, cure)


def _rejection(chain: Chain, state: PhaseState) -> Rejection:
    failure, version = state.failure, state.version
    assert failure is not None
    advice = [line for line in failure.hint.splitlines() if not _COMMANDS.search(line)]
    log = chain.root / version.folder / LOG if version is not None and version.folder else None
    if log is not None and log.is_file():
        advice.append(f"its log: {log}")
    return Rejection(failure.reason, "\n".join([*advice, _PUT_BACK]), ran=True)


def require_review(folder: BundleFolder, states: Mapping[str, PhaseState]) -> None:
    """Make sure that a person was shown the phase as it renders now; its runs on other files differ by data alone.

    Raises:
        NotReviewed: it was shown to nobody.
    """
    phase = folder.phase
    if folder.rendered.hash not in states.get(phase, PhaseState()).reviewed:
        raise NotReviewed(
            f"{phase} was not reviewed as it is now, and what the inbox trains is {phase} on other data",
            f"review it: kchain review {phase}",
        )


def _have_data_set(driver: Driver, run: Run, lines: Path, reporter: Reporter, name: str) -> None:
    """Upload the data set of a large file; its name has the content's hash, so it is never made twice."""
    if not run.dataset:
        return
    client, ref = driver.client(), run.dataset
    if client.dataset_status(ref) in (None, "DELETED"):
        reporter.note(name, f"uploading {size(lines.stat().st_size)} as the private data set {ref}")
        with tempfile.TemporaryDirectory(prefix="kchain-inbox-") as folder:
            shutil.copyfile(lines, Path(folder) / lines.name)
            try:
                client.dataset_create(Path(folder), ref, ref.partition("/")[2])
            except KchainError:
                # Made by an upload that got no answer, and invisible just now?
                if client.dataset_status(ref) is None:
                    raise
    wait_until_ready(driver, client, ref, lambda text: reporter.waiting(name, text))


def _have_files(driver: Driver, run: Run, result: Result) -> None:
    """Fetch the outputs of the run again where they were removed since."""
    outputs = (run.chain.root / result.folder).parent
    if not (run.chain.root / result.folder).is_dir():
        assert result.version is not None, "a run of the inbox is never adopted"
        shutil.rmtree(outputs, ignore_errors=True)
        driver.fetch(run.chain.kernel(run.name), result.version, outputs)
