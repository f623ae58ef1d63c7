"""What people read: progress lines, the status table, the final table, the reviewed changes."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drive_model import make_chain
from rich.console import Console

from kchain.cli.progress import Terminal
from kchain.cli.show import print_finished, print_status, savings
from kchain.client.answers import LogLine
from kchain.client.log import event_of
from kchain.client.stream import Follower
from kchain.errors import InputError, Unreachable
from kchain.orchestrator.adopt import locate
from kchain.orchestrator.driving.observe import is_notebook
from kchain.orchestrator.journal.state import Ancestor, Intent, PhaseFailure, PhaseState, Result, Version
from kchain.orchestrator.status import is_finished, state_word, table
from kchain.units import size

ONE = Ancestor("one", "1" * 64)
VERSION = Version(3, "https://x/3", "h", (), (), resend=False, time=10.0)
RESULT = Result(
    3, "kernel", "me/one", "adapter", False, "1" * 64, 42_000_000, (), 151645,
    {"steps": 120, "loss_first": 2.5, "loss_last": 0.75, "token_accuracy": 0.777},
    {"base_bytes": 1_600_000_000, "pulled_bytes": 43_000_000}, 3 * 3600.0, "runs/x", 10.0,
)  # fmt: skip
CHILD = Result(**{**vars(RESULT), "sha256": "2" * 64, "lineage": (ONE,)})
DONE = PhaseState(version=VERSION, result=RESULT, time=10.0)


def printed(show: Any, *arguments: Any, width: int = 160) -> str:
    console = Console(file=io.StringIO(), width=width, highlight=False)
    show(console, *arguments)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (PhaseState(), "new"),
        (PhaseState(reviewed=frozenset({"h"})), "reviewed"),
        (PhaseState(intent=Intent("h", None, (), resend=False, time=1.0)), "pushing"),
        (PhaseState(version=VERSION), "pushed"),
        (PhaseState(version=Version(**{**vars(VERSION), "word": "RUNNING"})), "running"),
        (PhaseState(version=Version(**{**vars(VERSION), "ended": True})), "ended"),
        (PhaseState(version=VERSION, failure=PhaseFailure("h", 3, "PhaseFailed", "why", "cure", "{}", 1.0)), "failed"),
        (DONE, "done"),
        (PhaseState(result=Result(**{**vars(RESULT), "adopted": True, "lineage": None})), "adopted"),
        (PhaseState(result=CHILD), "done"),
        (PhaseState(result=Result(**{**vars(RESULT), "lineage": (Ancestor("one", "9" * 64),)})), "stale"),
    ],
)
def test_a_phase_stands_in_one_word(tmp_path: Path, state: PhaseState, word: str) -> None:
    chain = make_chain(tmp_path, 2)
    phase = "two" if state.result is not None and state.result.lineage else "one"
    assert state_word(chain, {"one": DONE, phase: state}, phase) == word


def test_a_child_is_stale_while_its_parent_runs_again(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, 2)
    assert state_word(chain, {"one": PhaseState(version=VERSION), "two": PhaseState(result=CHILD)}, "two") == "stale"


def test_status_says_what_to_do_next(tmp_path: Path) -> None:
    chain = make_chain(tmp_path, 3)
    failed = PhaseState(version=VERSION, failure=PhaseFailure("h", 3, "PhaseFailed", "why", "", "{}", 1.0))
    rows = table(chain, {"one": DONE, "two": failed})
    assert [row.next.split(";")[0] for row in rows] == ["", "kchain logs two", "waits for two"]
    rows = table(chain, {})
    assert [row.next for row in rows] == ["kchain review one", "waits for one", "waits for two"]
    refused = PhaseState(reviewed=frozenset({"h"}), refused="2 of 2 sessions")
    assert "2 of 2 sessions" in table(chain, {"one": refused})[0].next


def test_the_status_table_keeps_every_figure_on_a_narrow_terminal(tmp_path: Path) -> None:
    text = printed(print_status, table(make_chain(tmp_path, 2), {"one": DONE}), width=40)
    assert "0.750" in text
    assert "77.7%" in text
    assert "42.0 MB" in text
    assert "1111111111" in text


def test_the_final_table_tells_what_moving_whole_models_would_have_cost(tmp_path: Path) -> None:
    chain, states = make_chain(tmp_path, 2), {"one": DONE, "two": PhaseState(version=VERSION, result=CHILD)}
    assert is_finished(chain, states)
    text = printed(print_finished, chain, states, width=50)
    assert "2.500 -> 0.750" in text
    assert "151645" in text
    assert " 3 h " in text
    # One base down for the first phase; one down and one up for the second.
    assert "86.0 MB moved; whole models would have been 4.8 GB (98.2 % saved)." in text


def test_an_adopted_adapter_without_figures_has_one_dash_for_its_loss(tmp_path: Path) -> None:
    bare = PhaseState(result=replace(CHILD, metrics={}, moved={}))
    text = printed(print_finished, make_chain(tmp_path, 1), {"one": bare}, width=120)
    assert "->" not in text


def test_savings_are_not_invented_where_the_base_is_not_known(tmp_path: Path) -> None:
    adopted = PhaseState(result=Result(**{**vars(RESULT), "adopted": True, "moved": {}}))
    assert savings(table(make_chain(tmp_path, 1), {"one": adopted})) == ""


def test_plain_progress_is_one_line_per_piece_of_news() -> None:
    file = io.StringIO()
    with Terminal(Console(file=file, width=80, highlight=False)) as terminal:
        terminal.note("one", "pushed version 1: https://x/[1]")
        for left in range(5, 0, -1):
            terminal.waiting("one", f"looking again for {left} s")
        terminal.event("one", {"event": "stage", "stage": "train"})
        for step in range(1, 101):
            terminal.event("one", {"event": "step", "step": step, "steps": 100, "loss": 1 / step, "memory_bytes": 0})
        terminal.event("one", {"event": "warning", "message": "recovered from an OOM"})
        terminal.event("one", {"event": "source", "name": "bad", "skipped": True, "error": "broken JSON"})
        sides = {"before": {"loss": 3.1, "token_accuracy": 0.1}, "after": {"loss": 1.2, "token_accuracy": 0.75}}
        terminal.event("one", {"event": "judged", "phase": "zero", "examples": 8, **sides})
        terminal.event("one", {"event": "samples", "count": 8, "eos_rate": 0.875, "eos_rate_before": 0.0})
        terminal.event("one", {"event": "styles", "separation": 16.0})
        terminal.event("one", {"event": "failed", "stage": "train", "reason": "too slow"})
    lines = file.getvalue().splitlines()
    assert lines[0] == "one  pushed version 1: https://x/[1]"
    assert sum("looking again" in line for line in lines) == 1
    assert sum("step " in line for line in lines) == 11
    assert "one  warning: recovered from an OOM" in lines
    assert "one  source bad skipped: broken JSON" in lines
    assert lines[-4:] == [
        "one  validation loss 3.100 -> 1.200, accuracy 10.0% -> 75.0% on zero",
        "one  answers that end by themselves 0% -> 88%",
        "one  answers in the longest style are 16.0 times as long",
        "one  failed in train: too slow",
    ]


def test_a_terminal_shows_a_bar_with_loss_and_time_left() -> None:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, highlight=False)
    with Terminal(console) as terminal:
        for step in range(1, 6):
            terminal.event("one", {"event": "step", "step": step, "steps": 10, "loss": 1.5, "memory_bytes": 2**30})
        terminal.note("one", "ended with COMPLETE")
    text = file.getvalue()
    assert "step 5/10" in text
    assert "loss 1.500" in text
    assert "1.0 GiB" in text
    assert "left" in text


def test_strange_events_do_not_stop_a_watch() -> None:
    printed = io.StringIO()
    with Terminal(Console(file=printed)) as terminal:
        for event in (
            {"event": "step"},
            {"event": "new in a later kchain"},
            {"event": "stage"},
            {"event": "step", "loss": "x"},
            {"event": "judged", "before": None, "after": {"loss": "x"}},
            {"event": "samples"},
        ):
            terminal.event("one", event)
        terminal.note("one", "still here")
    assert "still here" in printed.getvalue()


@pytest.mark.parametrize(("count", "words"), [(812, "812 B"), (41_943_040, "41.9 MB"), (9_600_000_000, "9.6 GB")])
def test_bytes_are_said_as_people_write_them(count: int, words: str) -> None:
    assert size(count) == words


@pytest.mark.parametrize(
    ("line", "due"),
    [
        ('kchain: {"event": "stage", "stage": "train"}', {"event": "stage", "stage": "train"}),
        ('kchain: {"event": 3}', None),
        ("kchain: [1]", None),
        ("kchain: {broken", None),
        ('Epoch 1 kchain: {"event": "stage"}', None),
        ("", None),
    ],
)
def test_events_are_told_from_other_lines(line: str, due: Any) -> None:
    assert event_of(line) == due


def log(*steps: int) -> list[LogLine]:
    return [LogLine("stdout", 1.0, "kchain: " + json.dumps({"event": "step", "step": step})) for step in steps]


def test_a_stream_that_starts_again_repeats_no_event() -> None:
    streams = [log(1, 2), log(1, 2, 3, 4)]
    got: list[int] = []
    ended = threading.Event()
    follower = Follower(lambda: iter(streams.pop(0)), lambda event: got.append(event["step"]), ended.set)
    for _ in range(2):
        follower.ensure_running()
        assert ended.wait(5)
        ended.clear()
        follower.finish(5) if not streams else follower._thread.join(5)  # type: ignore[union-attr]
    assert got == [1, 2, 3, 4]
    follower.ensure_running()
    assert got == [1, 2, 3, 4]


def test_a_stream_without_news_wakes_nobody() -> None:
    """Else a watch would poll without pause while the stream is not there."""
    woken: list[bool] = []
    follower = Follower(lambda: iter(()), lambda event: None, lambda: woken.append(True))
    follower.ensure_running()
    follower.finish(5)
    assert woken == []


def test_a_stream_that_breaks_leaves_the_watch_alone() -> None:
    def broken() -> Iterator[LogLine]:
        yield from log(1)
        raise Unreachable("cut")

    got: list[Any] = []
    follower = Follower(broken, got.append, lambda: None)
    follower.ensure_running()
    follower.finish(5)
    assert len(got) == 1


NOTEBOOK = {"cells": [{"cell_type": "code", "id": "a", "source": "x = 1\ny = 2", "outputs": []}], "metadata": {}}


@pytest.mark.parametrize(
    ("source", "same"),
    [
        (json.dumps(NOTEBOOK), True),
        (json.dumps({"cells": [{"cell_type": "code", "source": ["x = 1\n", "y = 2"], "outputs": [1]}]}), True),
        (json.dumps({"cells": [{"cell_type": "code", "source": "x = 1\ny = 3"}]}), False),
        (json.dumps({"cells": []}), False),
        ("print('a script')", False),
        ("[]", False),
        ("{}", False),
    ],
)
def test_a_pushed_notebook_is_known_again_by_its_cells(source: str, same: bool) -> None:
    assert is_notebook(source, NOTEBOOK) is same


def test_an_adapter_is_found_wherever_it_lies() -> None:
    assert locate(["adapter_model.safetensors", "adapter_config.json"], None, "x") == ""
    assert locate(["a/b/adapter_model.safetensors"], None, "x") == "a/b"
    several = ["a/adapter_model.safetensors", "b/adapter_model.safetensors"]
    assert locate(several, "b/", "x") == "b"
    with pytest.raises(InputError, match="several adapters: a, b") as told:
        locate(several, None, "x")
    assert "--inside" in told.value.hint
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        locate(["adapter_config.json"], None, "x")
    with pytest.raises(InputError, match=r"a/adapter_model\.bin is a pickle"):
        locate(["a/adapter_model.bin"], None, "x")
