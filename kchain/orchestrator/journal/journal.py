"""What happened, in order: an append-only event log in `.kchain/journal.db`.

SQLite with write-ahead logging and `synchronous=FULL`: an event that was written is still there after a power cut. An
*intent* is written before every effect on the target, its outcome after it; `state` folds the events into what is
known. Every bundle that was pushed is kept beside the events, so that a later review can show what changed.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kchain.errors import GateMissed, InputError
from kchain.kernel_metadata import Continuation
from kchain.orchestrator.journal.state import (
    Checkpoint,
    CheckpointUpload,
    Event,
    Intent,
    PhaseFailure,
    PhaseState,
    Result,
    Version,
    lineage,
)

# The disk is full, read-only or broken: the journal itself is sound.
_DISK = {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN}

JOURNAL = Path(".kchain") / "journal.db"
# Raised when there are new events or one changes its meaning; an older kchain refuses a newer journal. 2 added those of
# phases that take several sessions; a journal of format 1 is read as it is.
FORMAT = 2

_SCHEMA = """
CREATE TABLE event (
    number INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL,
    target TEXT NOT NULL, owner TEXT NOT NULL, chain TEXT NOT NULL, phase TEXT NOT NULL,
    kind TEXT NOT NULL, detail TEXT NOT NULL
) STRICT;
CREATE TRIGGER event_is_kept BEFORE DELETE ON event BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER event_is_final BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TABLE bundle (hash TEXT PRIMARY KEY, metadata TEXT NOT NULL, notebook TEXT NOT NULL) STRICT;
"""


@dataclass(frozen=True)
class Key:
    """Whose events: the same project may run on several targets and under several owners."""

    target: str
    owner: str
    chain: str


@dataclass(frozen=True)
class KeptBundle:
    """A bundle as it was shown or pushed: the texts of its two files."""

    hash: str
    metadata: str
    notebook: str


class Journal:
    """The events of one chain on one target.

    Args:
        root: folder of the project.
        key: whose events are written and read here.
        now: seconds since the epoch.

    Raises:
        InputError: the journal is damaged or was written by a newer kchain; says how to go on.
    """

    def __init__(self, root: Path, key: Key, now: Callable[[], float] = time.time) -> None:
        self.path = root / JOURNAL
        self.key = key
        self._now = now
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _readable(self.path):
            self._db = sqlite3.connect(self.path, timeout=30.0, isolation_level=None, check_same_thread=False)
            _prepare(self._db)

    def append(self, phase: str, kind: str, /, *, kept: KeptBundle | None = None, **detail: Any) -> None:
        """Write one event (and the bundle it speaks of); when this returns, it is on the disk."""
        row = (self._now(), self.key.target, self.key.owner, self.key.chain, phase, kind, json.dumps(detail))
        with _readable(self.path), _transaction(self._db):
            if kept is not None:
                self._db.execute(
                    "INSERT OR IGNORE INTO bundle VALUES (?, ?, ?)", (kept.hash, kept.metadata, kept.notebook)
                )
            self._db.execute(
                "INSERT INTO event (time, target, owner, chain, phase, kind, detail) VALUES (?, ?, ?, ?, ?, ?, ?)", row
            )

    def entries(self) -> list[Event]:
        """Every event of this chain on this target, oldest first."""
        with _readable(self.path):
            rows = self._db.execute(
                "SELECT number, time, phase, kind, detail FROM event "
                "WHERE target = ? AND owner = ? AND chain = ? ORDER BY number",
                (self.key.target, self.key.owner, self.key.chain),
            ).fetchall()
            return [Event(number, when, phase, kind, json.loads(text)) for number, when, phase, kind, text in rows]

    def states(self) -> dict[str, PhaseState]:
        """What the events amount to, by phase; a phase without events is absent."""
        with _readable(self.path):
            return fold(self.entries())

    def kept(self, bundle_hash: str) -> KeptBundle | None:
        """The bundle of that hash, if it was ever shown or pushed."""
        with _readable(self.path):
            row = self._db.execute(
                "SELECT hash, metadata, notebook FROM bundle WHERE hash = ?", (bundle_hash,)
            ).fetchone()
        return None if row is None else KeptBundle(*row)

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_states(root: Path, key: Key) -> dict[str, PhaseState]:
    """The states of a project without making a journal where there is none."""
    if not (root / JOURNAL).exists():
        return {}
    with Journal(root, key) as journal:
        return journal.states()


def _prepare(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA busy_timeout = 30000")
    if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
        raise sqlite3.DatabaseError("this file system does not carry SQLite's write-ahead log")
    db.execute("PRAGMA synchronous = FULL")
    with _transaction(db):
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            for statement in _statements(_SCHEMA):
                db.execute(statement)
        if version < FORMAT:
            db.execute(f"PRAGMA user_version = {FORMAT}")
    if version > FORMAT:
        raise InputError(f"the journal has format {version}, this kchain knows {FORMAT}", "install the newer kchain")
    if (finding := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
        raise sqlite3.DatabaseError(finding)


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; `executescript` would end the transaction."""
    part = ""
    for line in script.splitlines():
        part += line + "\n"
        if sqlite3.complete_statement(part):
            yield part
            part = ""


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Damage to the journal, told with its cure."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in _DISK:
            raise InputError(f"{path}: {error}", "free disk space, or make the folder writable") from error
        raise _damaged(path, error) from error
    except (sqlite3.Error, json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(
        f"{path}: the journal cannot be used: {error}",
        f"move it away (mv {path} {path}.damaged), then rebuild it from what the target knows: "
        "kchain adopt PHASE --kernel owner/slug, once for every phase that has run",
    )


# From the events to what is known about each phase. Pure.


def fold(events: Iterable[Event]) -> dict[str, PhaseState]:
    """The states after these events, by phase.

    Raises:
        KeyError: an event of an unknown kind, or one that lacks a part: the journal is damaged.
    """
    states: dict[str, PhaseState] = {}
    for event in events:
        before = states.get(event.phase, PhaseState())
        states[event.phase] = replace(_STEPS[event.kind](before, event), time=event.time)
    return states


def _reviewed(state: PhaseState, event: Event) -> PhaseState:
    bundle_hash = str(event.detail["hash"])
    failure, version = state.failure, state.version
    if failure is not None and version is not None and failure.hash == bundle_hash:
        # A second look after a failure resumes a run that has a checkpoint.
        left = state.checkpoint is not None and state.checkpoint.session < version.max_sessions
        failure = replace(failure, again=left)
    return replace(state, reviewed=state.reviewed | {bundle_hash}, failure=failure)


def _intent(state: PhaseState, event: Event) -> PhaseState:
    detail = event.detail
    intent = Intent(
        detail["hash"], detail["before"], lineage(detail["lineage"]), detail["resend"], event.time, **_run(detail)
    )
    return replace(state, intent=intent, refused="")


def _looked(state: PhaseState, event: Event) -> PhaseState:
    if state.intent is not None:
        return replace(state, intent=replace(state.intent, looked=event.time))
    if state.upload is not None:
        return replace(state, upload=replace(state.upload, looked=event.time))
    return state


def _released(state: PhaseState, event: Event) -> PhaseState:
    return replace(state, intent=None)


def _refused(state: PhaseState, event: Event) -> PhaseState:
    return replace(state, intent=None, upload=None, refused=str(event.detail["reason"]))


def _pushed(state: PhaseState, event: Event) -> PhaseState:
    detail = event.detail
    version = Version(
        number=int(detail["version"]),
        url=detail["url"],
        hash=detail["hash"],
        lineage=lineage(detail["lineage"]),
        invalid=tuple(detail["invalid"]),
        resend=detail["resend"],
        time=event.time,
        **_run(detail),
    )
    if version.continues is None:
        # Another run begins: what an earlier one had reached no longer counts.
        state = replace(state, checkpoint=None, upload=None)
    # A new version takes the place of the old one's output: the old result can no longer be mounted.
    return replace(state, intent=None, version=version, failure=None, result=None, refused="")


def _run(detail: Mapping[str, Any]) -> dict[str, Any]:
    """What a push tells about its run; a journal from before there were several sessions does not."""
    continues = detail.get("continues")
    return {
        "base": str(detail.get("base", "")),
        "max_sessions": int(detail.get("max_sessions", 1)),
        "continues": Continuation(**continues) if continues else None,
    }


def _status(state: PhaseState, event: Event) -> PhaseState:
    return _on_version(state, word=str(event.detail["word"]))


def _ended(state: PhaseState, event: Event) -> PhaseState:
    detail = event.detail
    return _on_version(state, word=str(detail["word"]), failure=str(detail["failure"]), ended=True)


def _pulled(state: PhaseState, event: Event) -> PhaseState:
    return _on_version(state, folder=str(event.detail["folder"]))


def _on_version(state: PhaseState, **changes: Any) -> PhaseState:
    return state if state.version is None else replace(state, version=replace(state.version, **changes))


def _paused(state: PhaseState, event: Event) -> PhaseState:
    told = dict(event.detail) | {"lineage": lineage(event.detail["lineage"])}
    return replace(state, checkpoint=Checkpoint(**told), upload=None)


def _unmounted(state: PhaseState, event: Event) -> PhaseState:
    return replace(_on_version(state, lost=True), unmounted=state.unmounted or event.detail["kind"] == "kernel")


def _uploading(state: PhaseState, event: Event) -> PhaseState:
    return replace(state, upload=CheckpointUpload(str(event.detail["ref"]), event.time), refused="")


def _uploaded(state: PhaseState, event: Event) -> PhaseState:
    return replace(state, upload=CheckpointUpload(str(event.detail["ref"]), event.time, answered=True))


def _failed(state: PhaseState, event: Event) -> PhaseState:
    detail = event.detail
    told = {key: detail[key] for key in ("hash", "version", "error", "reason", "hint", "gates")}
    failure = PhaseFailure(**told, time=event.time)
    # A training that ran to its end and missed a gate has nothing to resume from.
    ended = failure.error == GateMissed.__name__ and not (
        state.checkpoint is not None and state.checkpoint.version == failure.version
    )
    return replace(state, failure=failure, result=None, checkpoint=None if ended else state.checkpoint)


def _verified(state: PhaseState, event: Event) -> PhaseState:
    return replace(state, failure=None, result=_result(event, adopted=False), checkpoint=None, upload=None)


def _adopted(state: PhaseState, event: Event) -> PhaseState:
    # What was pushed before no longer matters: the result is another one.
    result = _result(event, adopted=True)
    return PhaseState(state.reviewed, result=result, refused=state.refused, unmounted=state.unmounted)


def _result(event: Event, *, adopted: bool) -> Result:
    detail = event.detail
    return Result(
        version=detail["version"],
        kind=detail["kind"],
        ref=detail["ref"],
        source_folder=detail["source_folder"],
        adopted=adopted,
        sha256=detail["sha256"],
        bytes=int(detail["bytes"]),
        lineage=None if detail["lineage"] is None else lineage(detail["lineage"]),
        pad_id=detail["pad_id"],
        metrics=detail["metrics"],
        moved=detail["moved"],
        seconds=detail["seconds"],
        folder=detail["folder"],
        time=event.time,
        found=str(detail.get("found", "")),
    )


_STEPS = {
    "reviewed": _reviewed,
    "intent": _intent,
    "looked": _looked,
    "released": _released,
    "refused": _refused,
    "pushed": _pushed,
    "status": _status,
    "ended": _ended,
    "pulled": _pulled,
    "paused": _paused,
    "unmounted": _unmounted,
    "uploading": _uploading,
    "uploaded": _uploaded,
    "verified": _verified,
    "failed": _failed,
    "adopted": _adopted,
}
