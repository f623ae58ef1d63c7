"""A run that stopped and went on in another session has the losses of one that was never interrupted."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from runtime_tiny import Events, make_root, mount, parameters, read_result, run_session
from runtime_workers import apart, losses, make_folder, make_job, random_examples, small_base, train

from kchain.runtime import checkpoint, session
from kchain.runtime.contract import WEIGHTS, LineageEntry
from kchain.runtime.failure import Stop
from kchain.runtime.files import hash_file
from kchain.runtime.paths import Paths
from kchain.runtime.watch import JUDGED_STEPS, WARM_UP_STEPS

STOPS_AT = WARM_UP_STEPS + JUDGED_STEPS  # of a run that is slower than its plan


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["OMP_NUM_THREADS"] = "1"
    return small_base(tmp_path_factory.mktemp("small") / "base")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "processes", "optimizer"),
    [
        # 5 steps an epoch: it stops in the middle of one
        pytest.param(19, 1, "adamw_torch", marks=pytest.mark.long),
        (41, 1, "paged_adamw_8bit"),  # 11 steps an epoch: it stops between two
        pytest.param(19, 2, "adamw_torch", marks=pytest.mark.long),
        pytest.param(41, 2, "adamw_torch", marks=pytest.mark.long),
    ],
)
def test_a_run_that_goes_on_elsewhere_has_the_losses_of_one_that_was_not_interrupted(
    small: Path, tmp_path: Path, events: Events, count: int, processes: int, optimizer: str
) -> None:
    examples = random_examples(count)
    changes: dict[str, Any] = {
        "processes": processes,
        "training__epochs": 50,
        "training__max_steps": 15,
        "training__optimizer": optimizer,
        "training__scheduler": "cosine",
        "training__warmup": 0.2,
        "lora__dropout": 0.3,
        "logs": str(tmp_path / "logs"),
    }
    whole = make_folder(tmp_path / "whole", examples)
    train(whole, make_job(small, **changes))
    expected = losses(events())
    first = make_folder(tmp_path / "first", examples)
    stopped = train(first, make_job(small, step_seconds=1e-9, **changes)).outcome
    assert (stopped.stopped, stopped.steps, stopped.most_steps) == ("slow", STOPS_AT, 15)
    left = checkpoint.latest(first, processes)
    assert left is not None
    moved = Path(shutil.move(left, tmp_path / "moved"))
    shutil.rmtree(first)
    second = make_folder(tmp_path / "second", examples)
    outcome = train(second, make_job(small, checkpoint=str(moved), **changes)).outcome
    found = losses(events())
    assert sorted(found) == list(range(1, 16))
    assert apart(found, expected) < 1e-6
    assert (outcome.steps, outcome.stopped, outcome.loss_first) == (15, None, expected[1])
    assert hash_file(second / "adapter" / WEIGHTS) == hash_file(whole / "adapter" / WEIGHTS)


@pytest.mark.slow
def test_optimizer_state_that_was_paged_when_it_was_saved_is_not_taken_for_paged_when_it_is_loaded(
    small: Path, tmp_path: Path, events: Events
) -> None:
    changes: dict[str, Any] = {"training__optimizer": "paged_adamw_8bit", "training__max_steps": 4}
    folder = make_folder(tmp_path / "run", random_examples(8))  # two steps an epoch, and a checkpoint after each
    train(folder, make_job(small, training__epochs=2, **changes))
    expected = losses(events())
    saved = folder / "checkpoints" / "checkpoint-2"
    state = torch.load(saved / "optimizer.pt", weights_only=True)
    marked = [value for value in tensors_of(state["state"]) if value.dim() > 1]
    assert marked, "there is state to be marked"
    for value in marked:  # as a GPU leaves it, where a CPU pages nothing
        value.is_paged, value.page_deviceid = True, 0
    torch.save(state, saved / "optimizer.pt")
    train(folder, make_job(small, training__epochs=2, checkpoint=str(saved), **changes))
    assert apart(losses(events()), {step: loss for step, loss in expected.items() if step > 2}) < 1e-6


def tensors_of(tree: Any) -> list[Any]:
    """All tensors in dictionaries of dictionaries."""
    if not isinstance(tree, dict):
        return [tree] if isinstance(tree, torch.Tensor) else []
    return [found for value in tree.values() for found in tensors_of(value)]


def root_of(folder: Path, base: Path) -> Path:
    root = make_root(folder, base)
    os.environ["KCHAIN_KAGGLE_ROOT"] = str(root)
    return root


@pytest.mark.slow
def test_a_session_that_ran_out_of_time_is_continued_by_the_next_and_ends_as_if_it_had_not(
    tmp_path: Path, base: Path, events: Events
) -> None:
    whole = root_of(tmp_path / "whole", base)
    run_session(parameters(training__logging_steps=1))
    expected = losses(events())
    first = root_of(tmp_path / "first", base)
    run_session(parameters(training__logging_steps=1, session_timeout=0))
    result = read_result(first)
    entry = result["checkpoint"]
    folder = first / "working" / "checkpoint"
    assert (result["status"], result["session"], result["stopped"]) == ("partial", 1, "time")
    assert (entry["folder"], entry["step"], entry["steps"]) == ("checkpoint", 1, 5)
    assert entry["sha256"] == hash_file(folder / "manifest.json")
    assert entry["bytes"] == sum(file.stat().st_size for file in folder.iterdir())
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {file.name for file in folder.iterdir()} == {*manifest["files"], "manifest.json"}, "flat, every file hashed"
    assert all(hash_file(folder / name) == expected_hash for name, expected_hash in manifest["files"].items())
    second = root_of(tmp_path / "second", base)
    mount(second, "notebooks/me/one", first / "working")
    goes_on = {"session": 2, "kind": "kernel", "ref": "me/one", "folder": "checkpoint", "sha256": entry["sha256"]}
    events()
    run_session(parameters(training__logging_steps=1, continuation=goes_on))
    assert apart(losses(events()), {step: loss for step, loss in expected.items() if step > 1}) < 1e-6
    continued, uninterrupted = read_result(second), read_result(whole)
    assert (continued["status"], continued["session"], continued["checkpoint"]) == ("complete", 2, None)
    assert not (second / "working" / "checkpoint").exists()
    assert continued["adapter"]["sha256"] == uninterrupted["adapter"]["sha256"]
    assert continued["metrics"] == uninterrupted["metrics"]


@pytest.fixture
def published(tmp_path: Path) -> tuple[Paths, dict[str, Any]]:
    """Folders of a session with a checkpoint mounted, and the continuation that means it."""
    left = tmp_path / "checkpoint-3"
    left.mkdir()
    (left / "trainer_state.json").write_text('{"global_step": 3, "max_steps": 9}')
    (left / "optimizer.pt").write_bytes(b"state")
    (left / "training_args.bin").write_bytes(b"a pickle")
    run = {"parameters": "p" * 64, "data": "d" * 64, "batch": 2, "processes": 1, "recovered": []}
    output = tmp_path / "input" / "notebooks" / "me" / "one"
    output.mkdir(parents=True)
    entry = checkpoint.publish(left, output, run)
    paths = Paths(tmp_path / "input", tmp_path / "working", tmp_path / "temp")
    meant = {"session": 2, "kind": "kernel", "ref": "me/one", "folder": "checkpoint", "sha256": entry.sha256}
    return paths, meant


def test_a_checkpoint_is_found_by_its_hash_and_holds_no_pickle(published: tuple[Paths, dict[str, Any]]) -> None:
    paths, meant = published
    folder, manifest = checkpoint.find(paths, meant, "p" * 64)
    assert sorted(file.name for file in folder.iterdir()) == ["manifest.json", "optimizer.pt", "trainer_state.json"]
    assert (manifest.step, manifest.steps) == (3, 9)
    checkpoint.check_data(manifest, "d" * 64)


def test_a_checkpoint_in_a_data_set_is_found_too(published: tuple[Paths, dict[str, Any]]) -> None:
    paths, meant = published
    shutil.copytree(paths.input / "notebooks/me/one/checkpoint", paths.input / "datasets/me/kept")
    folder, _ = checkpoint.find(paths, {**meant, "kind": "dataset", "ref": "me/kept", "folder": ""}, "p" * 64)
    assert folder == paths.input / "datasets/me/kept"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: shutil.rmtree(folder.parent), r"continuation: the kernel me/one is not mounted"),
        (lambda folder: shutil.rmtree(folder), r"continuation: .* the kernel me/one is not mounted|has no manifest"),
        (lambda folder: (folder / "optimizer.pt").unlink(), r"continuation: .* is damaged: optimizer\.pt"),
        (lambda folder: (folder / "optimizer.pt").write_bytes(b"other"), r"continuation: .* is damaged: optimizer\.pt"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), r"continuation: .* is another one"),
    ],
)
def test_a_checkpoint_that_is_not_there_or_not_the_one_stops_the_session(
    published: tuple[Paths, dict[str, Any]], damage: Any, reason: str
) -> None:
    paths, meant = published
    (paths.input / "notebooks/me/one/kchain-result.json").write_text("{}")
    damage(paths.input / "notebooks/me/one/checkpoint")
    with pytest.raises(Stop, match=reason):
        checkpoint.find(paths, meant, "p" * 64)


def test_a_checkpoint_of_other_parameters_or_other_data_stops_the_session(
    published: tuple[Paths, dict[str, Any]],
) -> None:
    with pytest.raises(Stop, match="continuation: .* other parameters"):
        checkpoint.find(*published, "q" * 64)
    _, manifest = checkpoint.find(*published, "p" * 64)
    with pytest.raises(Stop, match="continuation: .* other data"):
        checkpoint.check_data(manifest, "e" * 64)


def test_what_decides_the_result_is_in_the_fingerprint_and_what_does_not_is_not() -> None:
    same = checkpoint.parameters_print(parameters(), [])
    limits: dict[str, Any] = {"session_timeout": 60, "title": "Other", "continuation": {"session": 2}}
    assert checkpoint.parameters_print(parameters(**limits, training__step_seconds=1.0), []) == same
    for change in ({"seed": 1}, {"training__batch": 1}, {"lora__r": 8}, {"phase": "other"}, {"data__validation": 0.0}):
        assert checkpoint.parameters_print(parameters(**change), []) != same
    assert checkpoint.parameters_print(parameters(), [LineageEntry("one", "kernel", "me/one", "f" * 64)]) != same
    examples = random_examples(3)
    assert checkpoint.data_print(examples) != checkpoint.data_print(examples[::-1])


def test_a_missing_checkpoint_ends_the_session_in_preflight(kaggle: Path) -> None:
    goes_on = {"session": 2, "kind": "kernel", "ref": "me/one", "folder": "checkpoint", "sha256": "0" * 64}
    run = session.start(parameters(continuation=goes_on), "b" * 64)
    with pytest.raises(Stop, match="continuation: the kernel me/one is not mounted"):
        run.preflight()
    result = read_result(kaggle)
    assert (result["status"], result["session"]) == ("failed", 2)
    assert result["reason"].startswith("preflight: continuation")
