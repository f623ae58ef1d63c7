"""Actions carried out: every effect on the target stands between its intent and its outcome in the journal.

What a session left is fetched and judged here too, and the verdict written down.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kchain.client.target import Target
from kchain.errors import AdapterRefused, KchainError, NotReviewed, PhaseFailed, Unreachable
from kchain.orchestrator.driving.actions import (
    Action,
    End,
    Fail,
    Found,
    GiveUp,
    JudgeOutputs,
    Look,
    Lost,
    Observation,
    Pull,
    Push,
    Release,
    Reporter,
    UploadCheckpoint,
    Wait,
)
from kchain.orchestrator.driving.decide import after_refusal
from kchain.orchestrator.driving.folders import BundleFolder, Snapshot, later_session
from kchain.orchestrator.journal.journal import Journal
from kchain.orchestrator.journal.state import (
    Checkpoint,
    PhaseState,
    Version,
    expected_lineage,
    is_stale,
    rows,
    run_event,
)
from kchain.orchestrator.judging.checkpoint import NoCheckpoint, Paused, is_whole
from kchain.orchestrator.judging.judge import Used, Verdict, result_event
from kchain.phases import Chain
from kchain.runtime.contract import ADAPTER, CHECKPOINT
from kchain.units import size

if TYPE_CHECKING:
    from kchain.client.client import Client


class Puller(Protocol):
    """`pull.pull`: fetch the outputs of a kernel version into a folder."""

    def __call__(self, client: Client, ref: str, version: int, to: Path) -> Path: ...


class Judging(Protocol):
    """`judge.judge`: decide about the outputs of a version."""

    def __call__(
        self, chain: Chain, phase: str, version: Version, folder: Path, *, final: bool = False
    ) -> Verdict | Paused | NoCheckpoint: ...


def pull_outputs(client: Client, ref: str, version: int, to: Path) -> Path:
    """`pull.pull`, imported when it is first needed."""
    from kchain.client.pull import pull

    return pull(client, ref, version, to)


@dataclass
class Actor:
    """Carries actions out and writes them down."""

    chain: Chain
    target: Target
    journal: Journal
    reporter: Reporter
    fetch: Puller
    ask: Judging
    # Pushes and uploads of a phase that were refused in a row.
    _refusals: dict[str, int] = field(default_factory=dict)

    def act(
        self,
        connect: Callable[[], Client],
        folder: BundleFolder,
        states: Mapping[str, PhaseState],
        seen: Observation,
        action: Action,
    ) -> Action:
        """Carry out one action; the answer is the action, or what a refused push calls for instead.

        Raises:
            Unreachable: the target does not answer; the journal says what is known.
        """
        phase = folder.phase
        state = states.get(phase, PhaseState())
        match action:
            case Push():
                return self._push(connect(), folder, states, seen, action)
            case UploadCheckpoint(ref):
                return self._upload(connect(), phase, state, ref)
            case Pull(version):
                self._pull(connect(), phase, version)
            case JudgeOutputs():
                assert state.version is not None
                if not (self.chain.root / state.version.folder).is_dir():
                    self._pull(connect(), phase, state.version.number)
                else:
                    self.judge(phase, state)
            case Found(version, bundle_hash):
                self._found(connect, folder, states, version, bundle_hash)
            case Lost(_, reason):
                assert state.version is not None
                self._lost(phase, state.version, reason)
            case Fail(error):
                assert state.version is not None
                self._fail(phase, error, state.version.approved, state.version.number)
            case End(word, failure):
                self.journal.append(phase, "ended", word=word, failure=failure)
                self.reporter.note(phase, f"ended with {word}")
            case Look(kernel):
                self.journal.append(phase, "looked", version=kernel)
            case Release(reason):
                self.journal.append(phase, "released", reason=reason)
                self.reporter.note(phase, reason)
            case Wait(word=word) if word and state.version is not None and word != state.version.word:
                self.journal.append(phase, "status", word=word)
        return action

    def _push(
        self, client: Client, folder: BundleFolder, states: Mapping[str, PhaseState], seen: Observation, action: Push
    ) -> Action:
        phase, continuation = folder.phase, action.continuation
        ancestors = expected_lineage(self.chain, states, phase)
        assert ancestors is not None, "decide pushes only on verified parents"
        with self._to_send(folder, states, seen, action) as snapshot:
            if snapshot is None:
                error = NotReviewed(f"the bundle folder of {phase} was changed just now", f"kchain review {phase}")
                return GiveUp(error)
            tells: dict[str, Any] = {
                "hash": snapshot.kept.hash,
                "lineage": rows(ancestors),
                "resend": action.resend,
                **run_event(continuation, action.base or seen.bundle, snapshot.max_sessions),
            }
            self.journal.append(phase, "intent", kept=snapshot.kept, before=action.before, **tells)
            try:
                pushed = client.push(snapshot.folder, snapshot.timeout)
            except Unreachable as error:
                # Whether it arrived is not known: the intent stays open, and the next step looks.
                self.reporter.note(phase, f"the push got no clear answer ({error.message}); looking whether it arrived")
                raise
            except KchainError as error:
                return self._refused(phase, action.base or seen.bundle, error)
        self._refusals.pop(phase, None)
        self.journal.append(
            phase, "pushed", version=pushed.version, url=pushed.url, invalid=list(pushed.invalid), found=False, **tells
        )
        session = ""
        if continuation is not None:
            session = f" (session {continuation.session} of {tells['max_sessions']}, from {continuation.source})"
        self.reporter.note(phase, f"pushed version {pushed.version}{session}: {pushed.url}")
        if pushed.invalid:
            self.reporter.note(phase, f"the target could not mount {', '.join(pushed.invalid)}")
        self._tell_stale_children(phase, states)
        return action

    @contextmanager
    def _to_send(
        self, folder: BundleFolder, states: Mapping[str, PhaseState], seen: Observation, action: Push
    ) -> Iterator[Snapshot | None]:
        """The bundle that a push sends; None where the folder no longer holds what was decided upon."""
        if action.base:
            version = states[folder.phase].version
            assert version is not None and action.continuation is not None
            kept = self.journal.kept(version.hash)
            assert kept is not None, "every bundle that is pushed or found is kept"
            with later_session(kept, action.continuation) as snapshot:
                yield snapshot
            return
        with folder.snapshot() as snapshot:
            if snapshot.kept.hash != seen.bundle:
                yield None
            elif action.continuation is None:
                yield snapshot
            else:
                with later_session(snapshot.kept, action.continuation) as later:
                    yield later

    def _refused(self, phase: str, bundle_hash: str, error: KchainError) -> Action:
        self.journal.append(phase, "refused", error=type(error).__name__, reason=error.message)
        self._refusals[phase] = self._refusals.get(phase, 0) + 1
        follows = after_refusal(error, self._refusals[phase], self.target.poll_seconds)
        if isinstance(follows, Fail):
            self._fail(phase, error, bundle_hash, None)
            return GiveUp(error)
        return follows

    def _tell_stale_children(self, phase: str, states: Mapping[str, PhaseState]) -> None:
        after = {**states, phase: PhaseState()}
        for other in self.chain.phases:
            if is_stale(self.chain, after, other.name) and not is_stale(self.chain, states, other.name):
                was = "was trained on" if other.use is None else "used"
                self.reporter.note(other.name, f"is stale now: it {was} the adapter that {phase} had before")

    def _found(
        self,
        connect: Callable[[], Client],
        folder: BundleFolder,
        states: Mapping[str, PhaseState],
        version: int,
        bundle_hash: str,
    ) -> None:
        phase = folder.phase
        intent, kept = states.get(phase, PhaseState()).intent, None
        if intent is not None:
            ancestors, resend = intent.lineage, intent.resend
            run = run_event(intent.continues, intent.base or intent.hash, intent.max_sessions)
        else:
            # The journal does not know it: what it resumes from stands in its parameters.
            ancestors, resend = expected_lineage(self.chain, states, phase) or (), False
            kernel = connect().kernel(self.chain.kernel(phase), version)
            found = folder.recognised(kernel.source) if kernel is not None else None
            if found is None:
                raise Unreachable(f"version {version} of {phase} was there just now", "repeat the command")
            kept, continues = found
            run = run_event(continues, bundle_hash, self.chain.phase(phase).training.max_sessions)
        self.journal.append(
            phase,
            "pushed",
            kept=kept,
            version=version,
            url="",
            hash=bundle_hash if kept is None else kept.hash,
            invalid=[],
            lineage=rows(ancestors),
            resend=resend,
            found=True,
            **run,
        )
        self.reporter.note(
            phase, f"version {version} on the target is this very bundle; following it, nothing is pushed"
        )

    def _upload(self, client: Client, phase: str, state: PhaseState, ref: str) -> Action:
        checkpoint = state.checkpoint
        assert checkpoint is not None and state.version is not None
        folder = self._have_checkpoint(client, phase, checkpoint)
        self.reporter.note(phase, f"uploading its checkpoint, {size(checkpoint.bytes)}, as the private data set {ref}")
        self.journal.append(phase, "uploading", ref=ref)
        try:
            client.dataset_create(folder, ref, ref.partition("/")[2])
        except Unreachable as error:
            self.reporter.note(phase, f"the upload got no clear answer ({error.message}); looking whether it arrived")
            raise
        except KchainError as error:
            return self._refused(phase, state.version.approved, error)
        self._refusals.pop(phase, None)
        self.journal.append(phase, "uploaded", ref=ref)
        return UploadCheckpoint(ref)

    def _have_checkpoint(self, client: Client, phase: str, checkpoint: Checkpoint) -> Path:
        """The folder of a checkpoint; fetched again where it was deleted.

        Raises:
            AdapterRefused: it is another one than was verified.
        """
        folder = self.chain.root / checkpoint.folder
        if not is_whole(folder, checkpoint.sha256):
            shutil.rmtree(folder.parent, ignore_errors=True)
            self.fetch(client, self.chain.kernel(phase), checkpoint.version, folder.parent)
        if not is_whole(folder, checkpoint.sha256):
            raise AdapterRefused(
                f"{folder} is not the checkpoint that version {checkpoint.version} of {phase} left",
                f"from the beginning: kchain push {phase} --again",
            )
        return folder

    def _pull(self, client: Client, phase: str, version: int) -> None:
        """Fetch the outputs of a version into its folder."""
        folder = Path("runs") / self.target.folder / phase / f"v{version}"
        self.reporter.note(phase, f"fetching the outputs of version {version}")
        # A folder that the journal does not know is what another run with the same number left.
        shutil.rmtree(self.chain.root / folder, ignore_errors=True)
        self.fetch(client, self.chain.kernel(phase), version, self.chain.root / folder)
        self.journal.append(phase, "pulled", folder=folder.as_posix())

    def judge(self, phase: str, state: PhaseState) -> None:
        """Judge the outputs of the last version, which have been fetched, and write down the verdict."""
        version = state.version
        assert version is not None
        folder = self.chain.root / version.folder
        # Its checkpoint is recorded already: it was the last session that there may be.
        final = state.checkpoint is not None and state.checkpoint.version == version.number
        try:
            outcome = self.ask(self.chain, phase, version, folder, final=final)
        except PhaseFailed as error:
            self._fail(phase, error, version.approved, version.number)
            return
        pulled = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        match outcome:
            case Paused():
                self._pause(phase, state, version, outcome, pulled)
            case NoCheckpoint(reason):
                self._lost(phase, version, reason)
            case Verdict():
                self._accept(phase, state, version, outcome, pulled)

    def _fail(self, phase: str, error: KchainError, bundle_hash: str, version: int | None) -> None:
        """Write down that a phase failed, with the gates that were asked."""
        self.journal.append(
            phase,
            "failed",
            hash=bundle_hash,
            version=version,
            error=type(error).__name__,
            reason=error.message,
            hint=error.hint,
            gates=self.chain.phase(phase).gates.model_dump_json(),
        )

    def _lost(self, phase: str, version: Version, reason: str) -> None:
        """Write down that the target did not mount what a version was to resume from."""
        assert version.continues is not None
        self.journal.append(phase, "unmounted", version=version.number, kind=version.continues.kind, reason=reason)
        self.reporter.note(
            phase,
            f"version {version.number} found no checkpoint in {version.continues.source} ({reason}); "
            "it does not count as a session",
        )

    def _pause(self, phase: str, state: PhaseState, version: Version, stopped: Paused, pulled: int) -> None:
        before = state.checkpoint
        reached = Checkpoint(
            version=version.number,
            session=version.session,
            stopped=stopped.stopped,
            sha256=stopped.sha256,
            bytes=stopped.bytes,
            step=stopped.step,
            steps=stopped.steps,
            folder=f"{version.folder}/{CHECKPOINT}",
            lineage=version.lineage,
            seconds=stopped.seconds + (before.seconds if before is not None else 0.0),
            pulled_bytes=pulled + (before.pulled_bytes if before is not None else 0),
        )
        self.journal.append(phase, "paused", **asdict(reached) | {"lineage": rows(reached.lineage)})
        self.reporter.note(
            phase,
            f"session {version.session} of {version.max_sessions} ended at {reached.words}; its checkpoint, "
            f"{size(reached.bytes)}, is sound",
        )

    def _accept(self, phase: str, state: PhaseState, version: Version, verdict: Verdict, pulled: int) -> None:
        made = verdict.made
        place = "" if isinstance(made, Used) else ADAPTER
        detail = result_event(
            made,
            version=version.number,
            kind="kernel",
            ref=self.chain.kernel(phase),
            source_folder=place,
            folder=f"{version.folder}/{place}".rstrip("/"),
        )
        detail["lineage"] = rows(version.lineage)
        before = state.checkpoint if version.continues is not None else None
        if before is not None and before.version != version.number:
            detail["seconds"] = before.seconds + (detail["seconds"] or 0.0)
            pulled += before.pulled_bytes
        detail["moved"]["pulled_bytes"] = pulled
        self.journal.append(phase, "verified", **detail)
        passed = ", ".join(f"{gate.name} {gate.got}" for gate in verdict.gates)
        if not isinstance(made, Used):
            for warning in made.warnings:
                self.reporter.note(phase, warning)
            self.reporter.note(phase, f"verified {made.sha256[:12]}, {size(made.bytes)}; gates: {passed}")
            return
        self.reporter.note(phase, f"verified: {made.found}; gates: {passed}")
        if made.left:
            self.reporter.note(
                phase,
                f"{len(made.left)} files, {size(sum(made.left.values()))}, stay on the target; "
                f"to fetch them: kchain pull {phase} --all",
            )
