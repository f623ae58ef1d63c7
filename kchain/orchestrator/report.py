"""What a driver tells while it works, and the table of a chain: plain values that a terminal or a page can show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kchain.orchestrator.state import PhaseState, goes_on, is_stale

if TYPE_CHECKING:
    from kchain.phases import Chain


# Nothing is left to do for a phase in one of these states.
FINISHED = frozenset({"done", "adopted"})


@dataclass(frozen=True)
class Row:
    """One phase in the table of a chain; figures are None where there are none.

    Attributes:
        state: one word: new, reviewed, pushing, queued, running, ended, paused, done, adopted, failed, stale.
        session, max_sessions: which session of how many the last version is.
        step, of_steps: optimizer steps that its checkpoint holds, and those of the whole training.
        version: kernel version of the result, or of the last push.
        adapter_bytes, sha256, pad_id: of the verified adapter.
        seconds: run time of the sessions that made it.
        moved: bytes that travelled for it: what was downloaded.
        whole: bytes that moving whole models would have cost: the merged model down, and up again for every phase
            that builds on another one.
        when: seconds since the epoch of the last event.
        next: what to type or wait for next; empty when nothing is left.
        kind: what the phase does: "train", or how it uses what was trained; then `found` says what came of it.
    """

    phase: str
    title: str
    state: str
    session: int | None
    max_sessions: int | None
    step: int | None
    of_steps: int | None
    version: int | None
    url: str
    steps: int | None
    loss_first: float | None
    loss_last: float | None
    token_accuracy: float | None
    pad_id: int | None
    adapter_bytes: int | None
    sha256: str | None
    seconds: float | None
    moved: int | None
    whole: int | None
    when: float | None
    next: str
    kind: str = "train"
    found: str = ""

    @property
    def progress(self) -> str:
        """`session 2 of 3, step 600 of 4,700`; empty for a phase of one session that has no checkpoint."""
        if self.max_sessions is None or (self.session == 1 and self.step is None):
            return ""
        reached = "" if self.step is None else f", step {self.step:,} of {self.of_steps:,}"
        return f"session {self.session} of {self.max_sessions}{reached}"


def table(chain: Chain, states: Mapping[str, PhaseState]) -> list[Row]:
    """One row per phase, in the order of the chain."""
    return [_row(chain, states, phase.name) for phase in chain.phases]


def state_word(chain: Chain, states: Mapping[str, PhaseState], phase: str) -> str:
    """Where a phase stands, in a word."""
    state = states.get(phase, PhaseState())
    if state.intent is not None:
        return "pushing"
    if state.failure is not None:
        return "failed"
    if state.result is not None:
        return "stale" if is_stale(chain, states, phase) else "adopted" if state.result.adopted else "done"
    if goes_on(state):
        return "stale" if is_stale(chain, states, phase) else "paused"
    if state.version is not None:
        return "ended" if state.version.ended else (state.version.word or "pushed").lower()
    return "reviewed" if state.reviewed else "new"


def _row(chain: Chain, states: Mapping[str, PhaseState], phase: str) -> Row:
    state = states.get(phase, PhaseState())
    result, version, checkpoint = state.result, state.version, state.checkpoint
    metrics = result.metrics if result is not None else {}
    word, trains = state_word(chain, states, phase), chain.phase(phase).use is None
    return Row(
        phase=phase,
        title=chain.phase(phase).title,
        state=word,
        session=version.session if version is not None else None,
        max_sessions=version.max_sessions if version is not None else None,
        step=checkpoint.step if checkpoint is not None else None,
        of_steps=checkpoint.steps if checkpoint is not None else None,
        version=result.version if result is not None else version.number if version is not None else None,
        url=version.url if version is not None else "",
        steps=metrics.get("steps"),
        loss_first=metrics.get("loss_first"),
        loss_last=metrics.get("loss_last"),
        token_accuracy=metrics.get("token_accuracy"),
        pad_id=result.pad_id if result is not None else None,
        adapter_bytes=result.bytes if result is not None and trains else None,
        sha256=result.sha256 if result is not None and trains else None,
        seconds=result.seconds if result is not None else None,
        moved=result.moved.get("pulled_bytes") if result is not None else None,
        whole=_whole(chain, state, phase),
        when=state.time,
        next=_next(chain, states, phase, word),
        kind=chain.phase(phase).kind,
        found=result.found if result is not None and word in FINISHED else "",
    )


def _whole(chain: Chain, state: PhaseState, phase: str) -> int | None:
    base = state.result.moved.get("base_bytes") if state.result is not None else None
    if base is None or chain.phase(phase).use is not None:
        return None
    return int(base) * (1 if chain.phase(phase).after is None else 2)


def _next(chain: Chain, states: Mapping[str, PhaseState], phase: str, word: str) -> str:
    state = states.get(phase, PhaseState())
    if word in FINISHED:
        return ""
    if word == "failed":
        return "kchain watch" if _again(state) else f"kchain logs {phase}; change what is wrong; kchain review {phase}"
    if word not in ("new", "reviewed", "stale"):
        return "kchain watch"
    waits_for = [
        parent.name for parent in chain.lineage(phase) if state_word(chain, states, parent.name) not in FINISHED
    ]
    if waits_for:
        return f"waits for {waits_for[-1]}"
    return (
        f"kchain watch  (refused: {state.refused})"
        if state.refused
        else (f"kchain review {phase}" if word == "new" else "kchain watch")
    )


def _again(state: PhaseState) -> bool:
    return state.failure is not None and state.failure.again


def is_finished(chain: Chain, states: Mapping[str, PhaseState]) -> bool:
    """Whether every phase has a result that counts."""
    return all(state_word(chain, states, phase.name) in FINISHED for phase in chain.phases)
