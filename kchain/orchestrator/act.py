"""Actions carried out: every effect on the target stands between its intent and its outcome in the journal."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kchain.errors import KchainError, NotReviewed, PhaseFailed, Unreachable
from kchain.orchestrator.actions import Action, End, Fail, Found, Judge, Look, Pull, Push, Release, Seen, Stop, Wait
from kchain.orchestrator.decide import after_refusal
from kchain.orchestrator.folders import BundleFolders
from kchain.orchestrator.journal import Journal
from kchain.orchestrator.judge import Verdict, judge, result_event
from kchain.orchestrator.report import Reporter, readable_bytes
from kchain.orchestrator.state import PhaseState, Version, expected_lineage, is_stale, rows
from kchain.orchestrator.target import Target
from kchain.phases import Chain

if TYPE_CHECKING:
    from kchain.orchestrator.client import Client


class Puller(Protocol):
    """`pull.pull`: fetch the outputs of a kernel version into a folder."""

    def __call__(self, client: Client, ref: str, version: int, to: Path) -> Path: ...


Judging = Callable[[Chain, str, Version, Path], Verdict]


def pull_outputs(client: Client, ref: str, version: int, to: Path) -> Path:
    """`pull.pull`, imported when it is first needed."""
    from kchain.orchestrator.pull import pull

    return pull(client, ref, version, to)


@dataclass
class Actor:
    """Carries actions out and writes them down.

    Attributes:
        refusals: pushes of a phase that were refused in a row.
    """

    chain: Chain
    target: Target
    journal: Journal
    folders: BundleFolders
    reporter: Reporter
    pull: Puller = pull_outputs
    judge: Judging = judge

    def __post_init__(self) -> None:
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
            case Pull(version):
                return self._pull(connect(), phase, version)
            case Judge():
                assert state.version is not None
                if not (self.chain.root / state.version.folder).is_dir():
                    return self._pull(connect(), phase, state.version.number)
                return self._judge(phase, state.version)
            case Found(version, bundle_hash):
                self._found(phase, states, version, bundle_hash)
            case Fail(error):
                assert state.version is not None
                self._record_failure(phase, error, state.version.hash, state.version.number)
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
        tells: dict[str, Any] = {"hash": seen.bundle, "lineage": rows(ancestors), "resend": action.resend}
        with self.folders.snapshot(phase) as snapshot:
            if snapshot.kept.hash != seen.bundle:
                return Stop(NotReviewed(f"the bundle folder of {phase} was changed just now", f"kchain review {phase}"))
            self.journal.append(phase, "intent", kept=snapshot.kept, before=action.before, **tells)
            try:
                pushed = client.push(snapshot.folder, self.chain.phase(phase).session_timeout)
            except Unreachable as error:
                # Whether it arrived is not known: the intent stays open, and the next step looks.
                self.reporter.note(phase, f"the push got no clear answer ({error.message}); looking whether it arrived")
                raise
            except KchainError as error:
                return self._refused(phase, states, seen, error)
        self._refusals.pop(phase, None)
        self.journal.append(
            phase, "pushed", version=pushed.version, url=pushed.url, invalid=list(pushed.invalid), found=False, **tells
        )
        self.reporter.note(phase, f"pushed version {pushed.version}: {pushed.url}")
        if pushed.invalid:
            self.reporter.note(phase, f"the target could not mount {', '.join(pushed.invalid)}")
        self._tell_stale_children(phase, states)
        return action

    def _refused(self, phase: str, states: Mapping[str, PhaseState], seen: Seen, error: KchainError) -> Action:
        self.journal.append(phase, "refused", error=type(error).__name__, reason=error.message)
        self._refusals[phase] = self._refusals.get(phase, 0) + 1
        follows = after_refusal(error, self._refusals[phase], self.target.poll_seconds)
        if isinstance(follows, Fail):
            self._record_failure(phase, error, seen.bundle, None)
            return Stop(error)
        return follows

    def _found(self, phase: str, states: Mapping[str, PhaseState], version: int, bundle_hash: str) -> None:
        state = states.get(phase, PhaseState())
        if state.intent is not None:
            ancestors, resend = state.intent.lineage, state.intent.resend
        else:
            ancestors, resend = expected_lineage(self.chain, states, phase) or (), False
        self.journal.append(
            phase,
            "pushed",
            version=version,
            url="",
            hash=bundle_hash,
            invalid=[],
            lineage=rows(ancestors),
            resend=resend,
            found=True,
        )
        self.reporter.note(
            phase, f"version {version} on the target is this very bundle; following it, nothing is pushed"
        )

    def _pull(self, client: Client, phase: str, version: int) -> Action:
        folder = Path("runs") / self.target.folder / phase / f"v{version}"
        self.reporter.note(phase, f"fetching the outputs of version {version}")
        # A folder nobody recorded is what another run with the same number left.
        shutil.rmtree(self.chain.root / folder, ignore_errors=True)
        self.pull(client, self.chain.kernel(phase), version, self.chain.root / folder)
        self.journal.append(phase, "pulled", folder=folder.as_posix())
        return Pull(version)

    def _judge(self, phase: str, version: Version) -> Action:
        folder = self.chain.root / version.folder
        try:
            verdict = self.judge(self.chain, phase, version, folder)
        except PhaseFailed as error:
            self._record_failure(phase, error, version.hash, version.number)
            return Judge(version.number)
        adapter = verdict.adapter
        detail = result_event(
            adapter,
            version=version.number,
            kind="kernel",
            ref=self.chain.kernel(phase),
            source_folder="adapter",
            folder=f"{version.folder}/adapter",
        )
        detail["lineage"] = rows(version.lineage)
        detail["moved"]["pulled_bytes"] = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        self.journal.append(phase, "verified", **detail)
        for warning in adapter.warnings:
            self.reporter.note(phase, warning)
        passed = ", ".join(f"{gate.name} {gate.got}" for gate in verdict.gates)
        self.reporter.note(phase, f"verified {adapter.sha256[:12]}, {readable_bytes(adapter.bytes)}; gates: {passed}")
        return Judge(version.number)

    def _record_failure(self, phase: str, error: KchainError, bundle_hash: str, version: int | None) -> None:
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

    def _tell_stale_children(self, phase: str, states: Mapping[str, PhaseState]) -> None:
        after = {**states, phase: PhaseState()}
        for other in self.chain.phases:
            if is_stale(self.chain, after, other.name) and not is_stale(self.chain, states, other.name):
                self.reporter.note(other.name, f"is stale now: it was trained on the adapter that {phase} had before")
