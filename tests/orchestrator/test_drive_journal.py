"""The journal: what was written stays, what is damaged says so, and the states are what the events amount to."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kchain.errors import InputError
from kchain.orchestrator.journal.journal import FORMAT, JOURNAL, Journal, KeptBundle, Key, fold, read_states
from kchain.orchestrator.journal.state import Event, PhaseState

KEY = Key("local", "someone", "chain")
RESULT = {
    "version": 1,
    "kind": "kernel",
    "ref": "someone/one",
    "source_folder": "adapter",
    "sha256": "a" * 64,
    "bytes": 10,
    "lineage": [],
    "pad_id": 151645,
    "metrics": {"loss_last": 0.5},
    "moved": {},
    "seconds": 1.0,
    "folder": "runs/local/one/v1/adapter",
}
DETAILS: dict[str, dict[str, Any]] = {
    "reviewed": {"hash": "h"},
    "intent": {"hash": "h", "before": None, "lineage": [], "resend": False},
    "looked": {"version": 3},
    "released": {"reason": "unchanged"},
    "refused": {"error": "SessionCap", "reason": "2 of 2"},
    "pushed": {
        "version": 1, "url": "u", "invalid": [], "hash": "h", "lineage": [], "resend": False, "found": False,
    },
    "status": {"word": "RUNNING"},
    "ended": {"word": "COMPLETE", "failure": ""},
    "pulled": {"folder": "runs/local/one/v1"},
    "paused": {
        "version": 1, "session": 1, "stopped": "time", "sha256": "c" * 64, "bytes": 9, "step": 6, "steps": 47,
        "folder": "runs/local/one/v1",        "lineage": [], "seconds": 1.0, "pulled_bytes": 9,
    },
    "unmounted": {"version": 2, "kind": "kernel", "reason": "r"},
    "uploading": {"ref": "someone/data"},
    "uploaded": {"ref": "someone/data"},
    "verified": RESULT,
    "failed": {"hash": "h", "version": 1, "error": "PhaseFailed", "reason": "r", "hint": "", "gates": "{}"},
    "adopted": {**RESULT, "kind": "dataset", "version": None, "lineage": None},
}  # fmt: skip


def write(root: Path, *kinds: str, phase: str = "one", key: Key = KEY) -> None:
    with Journal(root, key) as journal:
        for kind in kinds:
            journal.append(phase, kind, **DETAILS[kind])


def state(root: Path) -> PhaseState:
    return read_states(root, KEY).get("one", PhaseState())


def test_a_project_without_a_journal_gets_none_by_being_read(tmp_path: Path) -> None:
    assert read_states(tmp_path, KEY) == {}
    assert not (tmp_path / JOURNAL).exists()


def test_the_states_are_what_the_events_amount_to(tmp_path: Path) -> None:
    write(tmp_path, "reviewed", "intent")
    assert state(tmp_path).intent is not None
    write(tmp_path, "pushed", "status")
    running = state(tmp_path)
    assert running.intent is None
    assert running.version is not None
    assert (running.version.number, running.version.word, running.version.ended) == (1, "RUNNING", False)
    write(tmp_path, "ended", "pulled", "verified")
    done = state(tmp_path)
    assert done.result is not None
    assert (done.result.sha256, done.failure, done.reviewed) == ("a" * 64, None, frozenset({"h"}))


def test_a_new_push_takes_the_old_result_away(tmp_path: Path) -> None:
    write(tmp_path, "pushed", "ended", "pulled", "verified", "intent", "pushed")
    assert state(tmp_path).result is None


def test_a_refusal_closes_the_intent_and_is_told(tmp_path: Path) -> None:
    write(tmp_path, "intent", "refused")
    assert (state(tmp_path).intent, state(tmp_path).refused) == (None, "2 of 2")


def test_an_adoption_makes_what_was_pushed_before_irrelevant(tmp_path: Path) -> None:
    write(tmp_path, "pushed", "ended", "failed", "adopted")
    adopted = state(tmp_path)
    assert (adopted.version, adopted.failure) == (None, None)
    assert adopted.result is not None
    assert adopted.result.adopted


def test_targets_owners_and_chains_do_not_mix(tmp_path: Path) -> None:
    write(tmp_path, "reviewed")
    for other in (Key("kaggle", "someone", "chain"), Key("local", "else", "chain"), Key("local", "someone", "other")):
        assert read_states(tmp_path, other) == {}


def test_events_cannot_be_changed_or_removed(tmp_path: Path) -> None:
    write(tmp_path, "reviewed")
    db = sqlite3.connect(tmp_path / JOURNAL)
    for statement in ("DELETE FROM event", "UPDATE event SET kind = 'verified'"):
        with pytest.raises(sqlite3.Error, match="append-only"):
            db.execute(statement)
    db.close()


def test_a_kept_bundle_comes_back_as_it_was(tmp_path: Path) -> None:
    kept = KeptBundle("h", '{"title": "ü"}', '{"cells": []}')
    with Journal(tmp_path, KEY) as journal:
        journal.append("one", "intent", kept=kept, **DETAILS["intent"])
        assert journal.kept("h") == kept
        assert journal.kept("other") is None


def test_every_write_is_forced_to_the_disk(tmp_path: Path) -> None:
    with Journal(tmp_path, KEY) as journal:
        assert journal._db.execute("PRAGMA synchronous").fetchone()[0] == 2
        assert journal._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_status_can_read_while_a_driver_writes(tmp_path: Path) -> None:
    with Journal(tmp_path, KEY) as journal:
        journal.append("one", "reviewed", hash="h")
        assert read_states(tmp_path, KEY)["one"].reviewed == frozenset({"h"})
        journal.append("one", "intent", **DETAILS["intent"])
        assert read_states(tmp_path, KEY)["one"].intent is not None


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "text", "no tables", "unknown event", "no json"])
def test_a_damaged_journal_says_how_to_rebuild_it(tmp_path: Path, damage: str) -> None:
    write(tmp_path, *DETAILS)
    path = tmp_path / JOURNAL
    content = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2 + 100])
    elif damage == "overwritten":
        path.write_bytes(content[:4096] + os.urandom(len(content) - 4096))
    elif damage == "text":
        path.write_text("not a database, but long enough to be taken for one " * 40, encoding="utf-8")
    else:
        db = sqlite3.connect(path)
        if damage == "no tables":
            db.execute("DROP TABLE event")
        else:
            row = ("dreamt", "{}") if damage == "unknown event" else ("reviewed", "{no json")
            db.execute("INSERT INTO event VALUES (NULL, 1.0, 'local', 'someone', 'chain', 'one', ?, ?)", row)
        db.commit()
        db.close()
    with pytest.raises(InputError) as told:
        read_states(tmp_path, KEY)
    assert told.value.exit_code == 2
    assert str(path) in told.value.message
    assert "kchain adopt PHASE --kernel" in told.value.hint


def test_a_journal_of_a_later_kchain_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "reviewed")
    db = sqlite3.connect(tmp_path / JOURNAL)
    db.execute("PRAGMA user_version = 99")
    db.commit()
    db.close()
    with pytest.raises(InputError, match="format 99"):
        read_states(tmp_path, KEY)


def test_a_journal_from_before_there_were_several_sessions_is_read_and_goes_on(tmp_path: Path) -> None:
    write(tmp_path, "reviewed", "intent", "pushed", "ended")
    db = sqlite3.connect(tmp_path / JOURNAL)
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()
    known = state(tmp_path).version
    assert known is not None
    assert (known.session, known.max_sessions, known.approved) == (1, 1, "h")
    write(tmp_path, "pulled")
    db = sqlite3.connect(tmp_path / JOURNAL)
    assert db.execute("PRAGMA user_version").fetchone() == (FORMAT,), "an older kchain would not know the new events"


def test_a_checkpoint_is_known_until_its_phase_is_done_or_begun_anew(tmp_path: Path) -> None:
    write(tmp_path, "pushed", "ended", "pulled", "paused", "uploading", "uploaded", "unmounted")
    paused = state(tmp_path)
    assert paused.checkpoint is not None and paused.upload is not None
    assert (paused.checkpoint.words, paused.upload.answered, paused.unmounted) == ("step 6 of 47", True, True)
    write(tmp_path, "failed")
    assert state(tmp_path).checkpoint == paused.checkpoint
    write(tmp_path, "pushed")
    assert (state(tmp_path).checkpoint, state(tmp_path).upload, state(tmp_path).unmounted) == (None, None, True)
    write(tmp_path, "paused", "verified")
    assert state(tmp_path).checkpoint is None


def test_killed_while_it_writes_the_journal_keeps_every_event_it_confirmed(tmp_path: Path) -> None:
    """A real process, a real kill -9, five times."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom kchain.orchestrator.journal.journal import Journal, Key\n"
        "journal = Journal(Path(sys.argv[1]), Key('local', 'someone', 'chain'))\n"
        "number = len(journal.entries())\n"
        "while True:\n"
        "    journal.append('one', 'reviewed', hash=str(number))\n"
        "    number += 1\n"
        "    print(number, flush=True)\n"
    )
    confirmed = 0
    for _ in range(5):
        writer = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert writer.stdout is not None
        for _ in range(7):
            confirmed = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        writer.wait()
        confirmed = int(rest[-1]) if rest else confirmed
        with Journal(tmp_path, KEY) as journal:
            hashes = [entry.detail["hash"] for entry in journal.entries()]
        assert hashes == [str(number) for number in range(len(hashes))]
        assert len(hashes) in (confirmed, confirmed + 1)


@given(st.lists(st.sampled_from(sorted(DETAILS)), max_size=12))
def test_any_order_of_events_can_be_folded(kinds: list[str]) -> None:
    entries = [Event(number, float(number), "one", kind, DETAILS[kind]) for number, kind in enumerate(kinds)]
    states = fold(entries)
    found = states.get("one", PhaseState())
    assert found.time == (float(len(kinds) - 1) if kinds else None)
    assert found.failure is None or found.result is None
    # The log can be folded piece by piece: a restart sees what the process before it saw.
    assert fold([*entries]) == states
