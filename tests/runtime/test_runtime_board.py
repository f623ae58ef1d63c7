"""The curves for TensorBoard: event files that can be read, with every step once, also after a continuation."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboardX.proto.event_pb2 import Event

from kchain.runtime.watch import Board


def read(folder: Path) -> dict[str, dict[int, float]]:
    """Every scalar of the event files of a folder: tag, step, value. A record is length, checksum, event, checksum."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (length,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + length])
            place += 16 + length
            for value in event.summary.value:
                steps = found.setdefault(value.tag, {})
                assert event.step not in steps, "a step stands there once"
                steps[event.step] = value.simple_value
    return found


def train(folder: Path, history: list[dict[str, float]], steps: list[dict[str, float]]) -> None:
    board, state = Board(folder), SimpleNamespace(log_history=history, global_step=0)
    board.on_train_begin(None, state, None)
    for line in steps:
        state.global_step = int(line["step"])
        board.on_log(None, state, None, logs=line)
    board.on_log(None, state, None, logs={"train_runtime": 3.0})
    board.on_train_end(None, state, None)


def test_every_step_stands_in_the_event_file_with_its_loss(tmp_path: Path) -> None:
    train(tmp_path / "logs", [], [{"step": n, "loss": 9.0 - n, "learning_rate": 0.5} for n in (1, 2, 3)])
    assert read(tmp_path / "logs") == {
        "train/loss": {1: 8.0, 2: 7.0, 3: 6.0},
        "train/learning_rate": {1: 0.5, 2: 0.5, 3: 0.5},
    }


def test_a_run_that_goes_on_has_the_steps_before_it_too_and_none_twice(tmp_path: Path) -> None:
    history = [{"step": n, "loss": 9.0 - n} for n in (1, 2)]
    train(tmp_path / "logs", [], [{"step": n, "loss": 0.5} for n in (1, 2, 3)])  # ran out of memory after step 3
    train(tmp_path / "logs", history, [{"step": n, "loss": 9.0 - n} for n in (3, 4)])
    assert read(tmp_path / "logs")["train/loss"] == {1: 8.0, 2: 7.0, 3: 6.0, 4: 5.0}


def test_without_a_package_that_writes_them_there_are_no_curves_but_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kchain.runtime.watch.find_spec", lambda name: None)
    train(tmp_path / "logs", [], [{"step": 1, "loss": 1.0}])
    assert not (tmp_path / "logs").exists()
    assert "tensorboard" in capsys.readouterr().out


def test_the_notebook_does_not_wait_for_the_curves_to_be_imported() -> None:
    code = "import sys; from kchain.runtime import session; print('tensorboardX' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
