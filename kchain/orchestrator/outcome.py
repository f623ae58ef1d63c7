"""What a session came to: its outputs fetched, judged, and the outcome written down."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kchain.errors import AdapterRefused, KchainError, PhaseFailed
from kchain.kernel_metadata import CHECKPOINT_FOLDER
from kchain.orchestrator.actions import Reporter
from kchain.orchestrator.checkpoint import Missing, Paused, is_whole, seconds_of
from kchain.orchestrator.journal import Journal
from kchain.orchestrator.judge import Verdict, result_event
from kchain.orchestrator.judge_use import Used
from kchain.orchestrator.state import Checkpoint, PhaseState, Version, rows
from kchain.orchestrator.target import Target
from kchain.phases import Chain
from kchain.units import size

if TYPE_CHECKING:
    from kchain.orchestrator.client import Client


class Puller(Protocol):
    """`pull.pull`: fetch the outputs of a kernel version into a folder."""

    def __call__(self, client: Client, ref: str, version: int, to: Path) -> Path: ...


class Judging(Protocol):
    """`judge.judge`: decide about the outputs of a version."""

    def __call__(
        self, chain: Chain, phase: str, version: Version, folder: Path, *, final: bool = False
    ) -> Verdict | Paused | Missing: ...


def pull_outputs(client: Client, ref: str, version: int, to: Path) -> Path:
    """`pull.pull`, imported when it is first needed."""
    from kchain.orchestrator.pull import pull

    return pull(client, ref, version, to)


@dataclass(frozen=True)
class Outcomes:
    """Fetches and judges what sessions left."""

    chain: Chain
    target: Target
    journal: Journal
    reporter: Reporter
    fetch: Puller
    ask: Judging

    def pull(self, client: Client, phase: str, version: int) -> None:
        """Fetch the outputs of a version into its folder."""
        folder = Path("runs") / self.target.folder / phase / f"v{version}"
        self.reporter.note(phase, f"fetching the outputs of version {version}")
        # A folder nobody recorded is what another run with the same number left.
        shutil.rmtree(self.chain.root / folder, ignore_errors=True)
        self.fetch(client, self.chain.kernel(phase), version, self.chain.root / folder)
        self.journal.append(phase, "pulled", folder=folder.as_posix())

    def have_checkpoint(self, client: Client, phase: str, checkpoint: Checkpoint) -> Path:
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
                f"{folder}: is not the checkpoint that version {checkpoint.version} of {phase} left",
                f"from the beginning: kchain push {phase} --again",
            )
        return folder

    def judge(self, phase: str, state: PhaseState) -> None:
        """Judge the outputs of the last version, which lie here."""
        version = state.version
        assert version is not None
        folder = self.chain.root / version.folder
        # Its checkpoint is recorded already: it was the last session that there may be.
        final = state.checkpoint is not None and state.checkpoint.version == version.number
        try:
            outcome = self.ask(self.chain, phase, version, folder, final=final)
        except PhaseFailed as error:
            self.fail(phase, error, version.approved, version.number)
            return
        match outcome:
            case Paused():
                self._pause(phase, state, version, outcome, _size(folder))
            case Missing(reason):
                self.lost(phase, version, reason)
            case Verdict():
                self._accept(phase, state, version, outcome, _size(folder))

    def lost(self, phase: str, version: Version, reason: str) -> None:
        """Write down that the target did not mount what a version was to go on from."""
        assert version.continues is not None
        self.journal.append(phase, "unmounted", version=version.number, kind=version.continues.kind, reason=reason)
        self.reporter.note(
            phase,
            f"version {version.number} found no checkpoint in {version.continues.source} ({reason}); "
            "it does not count as a session",
        )

    def fail(self, phase: str, error: KchainError, bundle_hash: str, version: int | None) -> None:
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
            folder=f"{version.folder}/{CHECKPOINT_FOLDER}",
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
        place = "" if isinstance(made, Used) else "adapter"
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
            detail["seconds"] = before.seconds + seconds_of(made.result)
            pulled += before.pulled_bytes
        detail["moved"]["pulled_bytes"] = pulled
        self.journal.append(phase, "verified", **detail)
        passed = ", ".join(f"{gate.name} {gate.got}" for gate in verdict.gates)
        if isinstance(made, Used):
            self._tell_used(phase, made, passed)
            return
        for warning in made.warnings:
            self.reporter.note(phase, warning)
        self.reporter.note(phase, f"verified {made.sha256[:12]}, {size(made.bytes)}; gates: {passed}")

    def _tell_used(self, phase: str, made: Used, passed: str) -> None:
        self.reporter.note(phase, f"verified: {made.found}; gates: {passed}")
        if made.left:
            self.reporter.note(
                phase,
                f"{len(made.left)} files, {size(sum(made.left.values()))}, stay on the target; "
                f"to fetch them: kchain pull {phase} --all",
            )


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
