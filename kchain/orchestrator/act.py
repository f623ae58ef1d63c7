"""Actions carried out: every effect on the target stands between its intent and its outcome in the journal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kchain.errors import KchainError, NotReviewed, Unreachable
from kchain.orchestrator.actions import (
    Action,
    End,
    Fail,
    Found,
    Judge,
    Look,
    Lost,
    Pull,
    Push,
    Release,
    Reporter,
    Seen,
    Stop,
    Upload,
    Wait,
)
from kchain.orchestrator.decide import after_refusal
from kchain.orchestrator.folders import BundleFolders, Snapshot
from kchain.orchestrator.journal import Journal
from kchain.orchestrator.outcome import Outcomes
from kchain.orchestrator.state import PhaseState, expected_lineage, is_stale, rows, run_event
from kchain.orchestrator.target import Target
from kchain.phases import Chain
from kchain.units import size

if TYPE_CHECKING:
    from kchain.orchestrator.client import Client


@dataclass
class Actor:
    """Carries actions out and writes them down."""

    chain: Chain
    target: Target
    journal: Journal
    folders: BundleFolders
    reporter: Reporter
    outcomes: Outcomes

    def __post_init__(self) -> None:
        # Pushes and uploads of a phase that were refused in a row.
        self._refusals: dict[str, int] = {}

    def act(
        self, connect: Callable[[], Client], phase: str, states: Mapping[str, PhaseState], seen: Seen, action: Action
    ) -> Action:
        """Carry out one action; the answer is the action, or what a refused push calls for instead.

        Raises:
            Unreachable: the target does not answer; the journal says what is known.
        """
        state = states.get(phase, PhaseState())
        match action:
            case Push():
                return self._push(connect(), phase, states, seen, action)
            case Upload(ref):
                return self._upload(connect(), phase, state, ref)
            case Pull(version):
                self.outcomes.pull(connect(), phase, version)
            case Judge():
                assert state.version is not None
                if not (self.chain.root / state.version.folder).is_dir():
                    self.outcomes.pull(connect(), phase, state.version.number)
                else:
                    self.outcomes.judge(phase, state)
            case Found(version, bundle_hash):
                self._found(connect, phase, states, version, bundle_hash)
            case Lost(_, reason):
                assert state.version is not None
                self.outcomes.lost(phase, state.version, reason)
            case Fail(error):
                assert state.version is not None
                self.outcomes.fail(phase, error, state.version.approved, state.version.number)
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

    def _push(self, client: Client, phase: str, states: Mapping[str, PhaseState], seen: Seen, action: Push) -> Action:
        ancestors = expected_lineage(self.chain, states, phase)
        assert ancestors is not None, "decide pushes only on verified parents"
        with self._to_send(phase, states, seen, action) as snapshot:
            if snapshot is None:
                return Stop(NotReviewed(f"the bundle folder of {phase} was changed just now", f"kchain review {phase}"))
            tells: dict[str, Any] = {
                "hash": snapshot.kept.hash,
                "lineage": rows(ancestors),
                "resend": action.resend,
                **run_event(action.continuation, action.base or seen.bundle, snapshot.max_sessions),
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
        self.reporter.note(
            phase, f"pushed version {pushed.version}{_session(action, tells['max_sessions'])}: {pushed.url}"
        )
        if pushed.invalid:
            self.reporter.note(phase, f"the target could not mount {', '.join(pushed.invalid)}")
        self._tell_stale_children(phase, states)
        return action

    @contextmanager
    def _to_send(
        self, phase: str, states: Mapping[str, PhaseState], seen: Seen, action: Push
    ) -> Iterator[Snapshot | None]:
        """The bundle that a push sends; None where the folder no longer holds what was decided upon."""
        if action.base:
            version = states[phase].version
            assert version is not None and action.continuation is not None
            kept = self.journal.kept(version.hash)
            assert kept is not None, "every bundle that is pushed or found is kept"
            with self.folders.continued(kept, action.continuation) as snapshot:
                yield snapshot
            return
        with self.folders.snapshot(phase) as snapshot:
            if snapshot.kept.hash != seen.bundle:
                yield None
            elif action.continuation is None:
                yield snapshot
            else:
                with self.folders.continued(snapshot.kept, action.continuation) as later:
                    yield later

    def _refused(self, phase: str, bundle_hash: str, error: KchainError) -> Action:
        self.journal.append(phase, "refused", error=type(error).__name__, reason=error.message)
        self._refusals[phase] = self._refusals.get(phase, 0) + 1
        follows = after_refusal(error, self._refusals[phase], self.target.poll_seconds)
        if isinstance(follows, Fail):
            self.outcomes.fail(phase, error, bundle_hash, None)
            return Stop(error)
        return follows

    def _upload(self, client: Client, phase: str, state: PhaseState, ref: str) -> Action:
        checkpoint = state.checkpoint
        assert checkpoint is not None and state.version is not None
        folder = self.outcomes.have_checkpoint(client, phase, checkpoint)
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
        return Upload(ref)

    def _found(
        self,
        connect: Callable[[], Client],
        phase: str,
        states: Mapping[str, PhaseState],
        version: int,
        bundle_hash: str,
    ) -> None:
        intent, kept = states.get(phase, PhaseState()).intent, None
        if intent is not None:
            ancestors, resend = intent.lineage, intent.resend
            run = run_event(intent.continues, intent.base or intent.hash, intent.max_sessions)
        else:
            # The journal does not know it: what it goes on from stands in its parameters.
            ancestors, resend = expected_lineage(self.chain, states, phase) or (), False
            kernel = connect().kernel(self.chain.kernel(phase), version)
            found = self.folders.recognised(phase, kernel.source) if kernel is not None else None
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

    def _tell_stale_children(self, phase: str, states: Mapping[str, PhaseState]) -> None:
        after = {**states, phase: PhaseState()}
        for other in self.chain.phases:
            if is_stale(self.chain, after, other.name) and not is_stale(self.chain, states, other.name):
                was = "was trained on" if other.use is None else "used"
                self.reporter.note(other.name, f"is stale now: it {was} the adapter that {phase} had before")


def _session(action: Push, max_sessions: int) -> str:
    going_on = action.continuation
    return "" if going_on is None else f" (session {going_on.session} of {max_sessions}, from {going_on.source})"
