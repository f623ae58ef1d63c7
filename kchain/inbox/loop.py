"""The loop of an inbox: finish what is in work, take the oldest whole file, check it, train it, put it away.

The order keeps every file safe: the adapter lands first, then the file is archived, then it leaves the inbox, then the
job is forgotten. Each step done twice changes nothing, so a kill between any two only repeats one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kchain.client.target import Target
from kchain.errors import InputError, NotNow, NotReviewed, PhaseFailed, Unreachable
from kchain.inbox.arrivals import Arrivals
from kchain.inbox.box import Box, InboxJob, clear, forget, land, put, put_reason, take, unfinished_job
from kchain.inbox.examples import Rejection, check, derive, mapping, write_lines
from kchain.inbox.train import has_begun, look_back, require_review, train
from kchain.orchestrator.driving.actions import Reporter
from kchain.orchestrator.driving.drive import Ports
from kchain.orchestrator.driving.folders import bundle_folders, tell_unrehearsed
from kchain.orchestrator.journal.journal import Key, read_states
from kchain.orchestrator.journal.lock import only_one
from kchain.orchestrator.journal.state import PhaseState, Result
from kchain.phases import Chain, load_chain
from kchain.runtime.contract import RESULT, WEIGHTS
from kchain.runtime.failure import Stop

# Seconds between two looks at a folder where nothing happens.
_POLL = 1.0
# Seconds before what did not work is tried again: twice as long each time.
_FIRST_PAUSE, _LONGEST_PAUSE = 15.0, 600.0
# Runs that failed one after the other, after which it is hardly the files' fault: each may have cost hours of quota.
_FAILURES = 3


@dataclass(frozen=True)
class Handled:
    """What became of a file.

    Attributes:
        outcome: "trained", "already trained" or "rejected".
        moved_to: where the file lies now.
        adapter: the folder of its adapter; None for a rejected one.
        wrong: why it was rejected.
        ran: it was rejected for the outcome of its run.
    """

    file: str
    sha256: str
    outcome: str
    moved_to: Path
    adapter: Path | None = None
    version: int | None = None
    wrong: str = ""
    ran: bool = False


@dataclass
class Inbox:
    """An inbox and what its files are trained with.

    Attributes:
        root: folder of the project.
        target: None: the chain's own.
        still: seconds of rest after which a file counts as whole.
        settled: gets what became of each file.
    """

    box: Box
    root: Path
    phase: str
    target: str | None
    reporter: Reporter
    settled: Callable[[Handled], None]
    still: float
    ports: Ports | None = None
    _failures: int = field(default=0, init=False)
    _checked: str = field(default="", init=False)

    def run(self, *, once: bool) -> int:
        """Work until nothing is left (`once`), or for ever.

        Returns:
            how many files were rejected.

        Raises:
            DriverLocked: another kchain works on this inbox.
            NotReviewed: the phase was not reviewed as it is now.
            NotNow, Unreachable: (`once`) a file in work has to wait; it stays.
            KchainError: only a person can go on from here; nothing is lost.
        """
        self.box.prepare()
        with only_one(self.box.state / "lock", "another kchain works on this inbox"):
            for folder in (self.box.inbox, self.box.adapters, self.box.archive, self.box.rejected):
                clear(folder)
            self.box.restore()
            job = unfinished_job(self.box)
            if job is None:
                self._require_review()
            return self._work(job, once)

    def _work(self, job: InboxJob | None, once: bool) -> int:
        arrivals = Arrivals(self.box.inbox, self.still, self.reporter.note)
        done, rejected, rested = 0, 0, False
        if not once:
            self.reporter.note("inbox", f"waits for files in {self.box.inbox}; Ctrl-C ends it")
        while True:
            if job is not None:
                outcome = self._insist(job, once)
                done += 1
                rejected += outcome.outcome == "rejected"
                self._stop_on_failures(outcome)
                job, rested, self._checked = None, False, ""
            names = arrivals.look()
            if names:
                job = take(self.box, names[0], self.phase, self.target or load_chain(self.root).target)
            elif once and (rested or not arrivals.restless()):
                for name in arrivals.restless():
                    self.reporter.note(name, "is still being written; left for the next time")
                if not done:
                    self.reporter.note("inbox", f"nothing to take in {self.box.inbox}")
                return rejected
            else:
                time.sleep(self.still + 0.1 if once else _POLL)
                rested = True

    def _insist(self, job: InboxJob, once: bool) -> Handled:
        """Bring the job to its end, however often that has to be tried."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._settle(job)
            except (NotNow, Unreachable) as error:
                if once or isinstance(error, NotReviewed):
                    raise
                self.reporter.waiting(job.name, f"{error.message}; it stays, trying again in {pause:.0f} s")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
            # With what was found out about it meanwhile.
            job = unfinished_job(self.box) or job

    def _settle(self, job: InboxJob) -> Handled:
        chain = load_chain(self.root)
        chain.trained_phase(job.phase)
        target = Target(job.target, chain.owner, chain.root)
        job, found = self._outcome(chain, target, job)
        settled = self._reject(job, found) if isinstance(found, Rejection) else self._keep(chain, job, found)
        self.box.withdraw(job.name, job.sha256)
        # Told before the job is forgotten: rather twice than never.
        self.settled(settled)
        forget(job)
        return settled

    def _outcome(self, chain: Chain, target: Target, job: InboxJob) -> tuple[InboxJob, Result | Rejection]:
        lines = job.folder / "examples" / f"{job.short_hash}.jsonl"
        try:
            phase = chain.phase(job.phase)
            run = derive(chain, job.phase, job.sha256, lines, mapping(phase, write_lines(job.dropped, lines, phase)))
        except Stop as stop:
            return job, Rejection(stop.reason, "correct the file and put it into inbox/ again")
        except InputError as error:
            return job, Rejection(error.message, f"{error.hint}; then put the file into inbox/ again")
        job = look_back(run, target, job)
        state = read_states(chain.root, Key(target.name, chain.owner, chain.name)).get(run.name, PhaseState())
        if self._checked != job.sha256 and not has_begun(job, state):
            found = check(run.chain, run.name, job.dropped)
            if isinstance(found, Rejection):
                return job, found
            self.reporter.note(job.name, f"is checked, and becomes a run of {job.phase}: {found}")
            # A job that is only tried again later need not be checked again.
            self._checked = job.sha256
        return job, train(run, target, job, lines, self.reporter, self.ports)

    def _keep(self, chain: Chain, job: InboxJob, result: Result) -> Handled:
        folder = chain.root / result.folder
        rest = sorted(path for path in folder.iterdir() if path.is_file() and path.name != WEIGHTS)
        files = [folder / WEIGHTS, *rest, folder.parent / RESULT]
        adapter = land(files, self.box.adapters, job.stem, job.sha256, result.version)
        moved_to = put(job.dropped, self.box.archive, job.name, job.sha256)
        word = "already trained" if job.already else "trained"
        return Handled(job.name, job.sha256, word, moved_to, adapter, result.version)

    def _reject(self, job: InboxJob, found: Rejection) -> Handled:
        moved_to = put(job.dropped, self.box.rejected, job.name, job.sha256)
        put_reason(moved_to, f"{job.name} was rejected\n\nwhat is wrong:\n{found.wrong}\n\nwhat to do:\n{found.cure}\n")
        return Handled(job.name, job.sha256, "rejected", moved_to, wrong=found.wrong, ran=found.ran)

    def _stop_on_failures(self, outcome: Handled) -> None:
        self._failures = self._failures + 1 if outcome.ran else 0 if outcome.adapter else self._failures
        if self._failures >= _FAILURES:
            raise PhaseFailed(
                f"{_FAILURES} runs in a row failed, the last with: {outcome.wrong}",
                "the files are hardly the cause, and every run may cost hours; the reasons are beside them in "
                "rejected/. The same command resumes with what is left in inbox/",
            )

    def _require_review(self) -> None:
        """Refuse now what the first file would be refused for, and warn as `push` does."""
        chain = load_chain(self.root)
        chain.trained_phase(self.phase)
        target = Target(self.target or chain.target, chain.owner, chain.root)
        states = read_states(chain.root, Key(target.name, chain.owner, chain.name))
        folder = bundle_folders(chain, target, states)[self.phase]
        require_review(folder, states)
        tell_unrehearsed(chain, target, [folder], self.reporter)
