"""Whole sessions on a real, tiny model: what they leave behind when all is well, and when it is not."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from runtime_tiny import (
    EOS,
    EOS_ID,
    SOURCE,
    Events,
    events_in,
    mount,
    parameters,
    read_result,
    run_session,
    second_phase,
    source,
    write_jsonl,
)
from safetensors.torch import load_file

from kchain.runtime import evaluate, failure, session, watch
from kchain.runtime.failure import Stop
from kchain.runtime.files import hash_file

PACKAGE = Path(session.__file__).parent


def result_in(working: Path) -> dict[str, Any]:
    return read_result(working.parent)


def test_a_finished_session_leaves_adapter_validation_split_and_result(two_phases: tuple[Path, Path]) -> None:
    working, _ = two_phases
    result = result_in(working)
    assert (result["status"], result["reason"], result["bundle"]) == ("complete", None, "b" * 64)
    assert sorted(path.name for path in working.iterdir()) == [
        "adapter",
        "kchain-result.json",
        *(["logs"] if find_spec("tensorboardX") or find_spec("tensorboard") else []),
        "validation.jsonl",
    ]
    weights = working / "adapter" / "adapter_model.safetensors"
    assert result["adapter"]["sha256"] == hash_file(weights)
    assert result["adapter"]["bytes"] == weights.stat().st_size
    assert result["adapter"]["tensors"] == len(load_file(weights)) == 16  # 2 layers, 4 targets, A and B
    lines = (working / "validation.jsonl").read_text().splitlines()
    assert len(lines) == result["examples"]["validation"] == 2
    assert json.loads(lines[0])["messages"][-1]["role"] == "assistant"
    assert (result["metrics"]["steps"], result["metrics"]["all_epochs"]) == (5, True)
    assert (result["session"], result["stopped"], result["checkpoint"], result["recovered"]) == (1, None, None, [])
    assert result["metrics"]["loss_last"] < result["metrics"]["loss_first"]
    assert 0.0 <= result["metrics"]["token_accuracy"] <= 1.0
    assert math.isfinite(result["metrics"]["eval_loss"])
    assert result["versions"]["torch"]
    assert result["peak_memory_bytes"] > 10**8


def test_the_adapter_names_the_original_model_and_carries_the_forced_pad_token(two_phases: tuple[Path, Path]) -> None:
    from transformers import AutoTokenizer

    folder = two_phases[1] / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == SOURCE
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 8, "CAUSAL_LM")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert (tokenizer.pad_token_id, tokenizer.eos_token) == (EOS_ID, EOS)
    assert not list(folder.glob("*.bin"))
    assert {weight.dtype for weight in load_file(folder / "adapter_model.safetensors").values()} == {torch.float32}


def test_the_model_card_says_what_the_adapter_must_be_put_on(two_phases: tuple[Path, Path]) -> None:
    first, second = ((working / "adapter" / "README.md").read_text() for working in two_phases)
    assert "does not belong" not in first
    assert f"does not belong on {SOURCE} alone" in second
    assert result_in(two_phases[0])["adapter"]["sha256"] in second


def test_the_second_phase_records_the_adapter_it_was_built_on(two_phases: tuple[Path, Path]) -> None:
    first, second = (result_in(working) for working in two_phases)
    assert first["lineage"] == []
    assert second["lineage"] == [
        {"phase": "phase1", "kind": "kernel", "ref": "me/one", "sha256": first["adapter"]["sha256"], "use": "merge"}
    ]
    assert second["moved"]["adapter_bytes_in"] == first["adapter"]["bytes"]
    assert second["moved"]["base_bytes"] > 100 * first["adapter"]["bytes"]


def test_the_saved_adapter_on_an_independent_merge_gives_the_sessions_logits(
    base: Path, two_phases: tuple[Path, Path]
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, two_phases[0] / "adapter").merge_and_unload().half().float()
    probe = result_in(two_phases[1])["probe"]
    ids = torch.tensor([probe["prompt_ids"]])
    with torch.no_grad():
        alone = merged(ids).logits[0, -1]
        loaded = PeftModel.from_pretrained(merged, two_phases[1] / "adapter").eval()
        logits = loaded(ids).logits[0, -1]
    expected = torch.tensor(probe["logits"])
    assert torch.allclose(logits[: len(expected)], expected, rtol=0, atol=1e-5)
    assert int(logits.argmax()) == probe["argmax"]
    assert not torch.allclose(alone[: len(expected)], expected, rtol=0, atol=1e-3), "the adapter is what gives them"


def test_the_log_tells_every_stage_every_step_window_and_the_result(two_phases: tuple[Path, Path]) -> None:
    found = events_in((two_phases[0].parent / "session.log").read_text(encoding="utf-8"))
    stages = [event["stage"] for event in found if event["event"] == "stage"]
    assert stages == ["install", "preflight", "merge", "data", "quality", "train", "evaluate", "save"]
    steps = [event for event in found if event["event"] == "step"]
    assert [(event["step"], event["steps"]) for event in steps] == [(1, 5), (2, 5), (4, 5), (5, 5)]
    assert all(event["loss"] > 0 and event["memory_bytes"] > 0 for event in steps)
    assert [event for event in found if event["event"] == "pad"][0]["id"] == EOS_ID
    assert found[-1]["event"] == "result"
    assert found[-1]["status"] == "complete"


def test_the_second_phase_tells_path_and_hash_of_what_it_found(
    kaggle: Path, two_phases: tuple[Path, Path], events: Events
) -> None:
    mount(kaggle, "one", two_phases[0])  # the old layout
    session.start(second_phase(), "b" * 64).preflight()
    (told,) = next(event for event in events() if event["event"] == "inputs")["adapters"]
    assert told["path"] == str(kaggle / "input" / "one" / "adapter")
    assert told["sha256"] == result_in(two_phases[0])["adapter"]["sha256"]


@pytest.mark.long
def test_the_same_seed_gives_the_same_adapter(kaggle: Path, two_phases: tuple[Path, Path]) -> None:
    run_session(parameters())
    assert read_result(kaggle)["adapter"]["sha256"] == result_in(two_phases[0])["adapter"]["sha256"]
    run_session(parameters(seed=43))
    assert read_result(kaggle)["adapter"]["sha256"] != result_in(two_phases[0])["adapter"]["sha256"]


def test_a_small_model_learns_to_answer_and_to_stop(kaggle: Path) -> None:
    rows = [
        {"ask": f"{ask} {n}", "answer": told} for n in range(8) for ask, told in (("list", "ls"), ("count", "wc -l"))
    ]
    write_jsonl(kaggle / "temp" / "project" / "train.jsonl", rows)
    values = parameters(training__epochs=12, training__learning_rate=0.02, data__max_examples=16)
    values["lora"].update(r=16, alpha=64, dropout=0.0, targets=["all-linear"])
    run_session(values)
    metrics = read_result(kaggle)["metrics"]
    assert metrics["loss_last"] < 0.8 * metrics["loss_first"]
    assert metrics["token_accuracy"] > 0.3


@pytest.mark.slow
def test_a_conversation_trains_in_four_bits_with_the_paged_optimizer_and_checkpointing(
    kaggle: Path, two_phases: tuple[Path, Path]
) -> None:
    mount(kaggle, "notebooks/me/one", two_phases[0])
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chats = [{"messages": [*turns, {"role": "user", "content": f"{n}"}, turns[1]]} for n in range(8)]
    write_jsonl(kaggle / "temp" / "project" / "train.jsonl", chats)
    values = second_phase(data__recipe="conversation", data__sources=[source(fields={"messages": "messages"})])
    values["training"].update(
        quantization="nf4", optimizer="paged_adamw_8bit", checkpointing=True, scheduler="constant", warmup=0.3
    )
    run_session(values)
    result = read_result(kaggle)
    assert result["status"] == "complete"
    assert result["metrics"]["forgotten"] is not None
    assert result["metrics"]["eos_rate"] is not None, "a model in 4 bits answers, too"
    assert result["metrics"]["loss_last"] < result["metrics"]["loss_first"]


@pytest.mark.long
def test_max_steps_ends_the_training_and_counts_as_all_of_it(kaggle: Path) -> None:
    run_session(parameters(training__max_steps=2, training__epochs=50))
    result = read_result(kaggle)
    assert (result["status"], result["metrics"]["steps"], result["metrics"]["all_epochs"]) == ("complete", 2, True)


@pytest.mark.long
def test_a_run_shorter_than_a_logging_window_still_shows_a_fall_of_the_loss(kaggle: Path) -> None:
    run_session(parameters(training__logging_steps=50))
    metrics = read_result(kaggle)["metrics"]
    assert metrics["loss_last"] < metrics["loss_first"]


@pytest.mark.slow
def test_a_phase_without_a_validation_split_warns_and_has_no_token_accuracy(kaggle: Path, events: Events) -> None:
    run_session(parameters(data__validation=0.0))
    result = read_result(kaggle)
    assert result["metrics"]["token_accuracy"] is None
    assert "no validation examples" in result["evaluation"]["absent"]["token_accuracy"]
    assert any("no validation examples" in event.get("message", "") for event in events())


@pytest.mark.slow
def test_a_run_that_reaches_its_time_limit_saves_what_it_has_as_partial(kaggle: Path) -> None:
    run_session(parameters(session_timeout=0))
    result = read_result(kaggle)
    assert result["status"] == "partial"
    assert "time is nearly over" in result["reason"]
    assert (result["metrics"]["steps"], result["metrics"]["all_epochs"]) == (1, False)
    assert (kaggle / "working" / "adapter" / "adapter_model.safetensors").is_file()
    assert result["metrics"]["eval_loss"] is not None, "what its gates ask for is there"
    assert result["evaluation"]["absent"]["eos_rate"] == "the session's time was nearly over"


@pytest.mark.slow
def test_a_run_slower_than_twice_the_plan_stops_itself_as_partial(kaggle: Path, events: Events) -> None:
    run_session(parameters(training__epochs=50, training__step_seconds=1e-6))
    result = read_result(kaggle)
    assert result["status"] == "partial"
    assert "were planned" in result["reason"]
    assert result["stopped"] == "slow"
    assert result["metrics"]["steps"] == watch.WARM_UP_STEPS + watch.JUDGED_STEPS
    assert [event for event in events() if event["event"] == "step"][-1]["step"] == result["metrics"]["steps"]


def test_a_loss_that_is_no_number_stops_the_notebook_at_that_step(kaggle: Path, events: Events) -> None:
    with pytest.raises(Stop, match="the loss is nan at step") as caught:
        run_session(parameters(training__learning_rate=1e36))
    assert re.search(r"in every batch: example \d begins with '<\|im_start\|>system", caught.value.reason)
    assert caught.value.cure.startswith("the weights are not finite any more: lower training.learning_rate")
    result = read_result(kaggle)
    assert result["status"] == "failed"
    assert "the loss is nan at step" in result["reason"]
    assert not (kaggle / "working" / "adapter").exists()
    failed = [event for event in events() if event["event"] == "failed"]
    assert [(event["stage"], event["cure"]) for event in failed] == [("train", caught.value.cure)]


def test_a_failed_stage_is_written_down_told_and_raised_again(kaggle: Path, events: Events) -> None:
    (kaggle / "temp" / "project" / "train.jsonl").write_text("no JSON\n")
    with pytest.raises(Stop, match="source shell"):
        run_session(parameters())
    result = read_result(kaggle)
    assert result["status"] == "failed"
    assert result["reason"].startswith("data: source shell")
    assert result["adapter"] is None
    assert events()[-1]["event"] == "failed"


@pytest.mark.slow
def test_a_failure_after_the_training_fails_the_session_but_loses_no_adapter(
    kaggle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*args: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(evaluate, "evaluate", no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        run_session(parameters())
    result = read_result(kaggle)
    assert result["status"] == "failed"
    assert result["reason"].startswith("evaluate: OutOfMemoryError")
    assert result["adapter"]["sha256"] == hash_file(kaggle / "working" / "adapter" / "adapter_model.safetensors")


def test_running_out_of_gpu_memory_is_explained_with_what_really_helps() -> None:
    reason, cure = failure.explain(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.32 GiB"))
    assert "2.32 GiB" in reason
    assert "halve training.batch and double training.accumulation" in cure
    assert "checkpointing" in cure
    assert "fewer examples do not help" in cure


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (MemoryError(), "machine's own memory"),
        (OSError(28, "No space left on device"), "disk is full"),
        (ModuleNotFoundError("No module named 'bitsandbytes'"), "internet on"),
        (ConnectionError("Max retries exceeded"), "internet on"),
        (ValueError("Attempting to unscale FP16 gradients."), "not fp32"),
        (KeyboardInterrupt(), "interrupted"),
        (ZeroDivisionError("division by zero"), "traceback"),
    ],
)
def test_every_failure_comes_with_something_to_do(error: BaseException, cure: str) -> None:
    assert cure in failure.explain(error)[1]


def test_no_example_with_anything_to_learn_stops_with_the_length_as_the_reason(kaggle: Path) -> None:
    with pytest.raises(Stop, match="within 8 tokens"):
        run_session(parameters(training__max_length=8))


# What follows runs the package as the notebook does: copied beside nothing of kchain, in a process of its own.
DRIVER = """
import json, sys
from kchain_runtime import session
PARAMETERS = json.loads(sys.argv[1])
run = session.start(PARAMETERS, "b" * 64)
run.install()
heavy = {"torch", "transformers", "peft", "bitsandbytes", "datasets"} & set(sys.modules)
print("imported before the install is over:", sorted(heavy), flush=True)
run.preflight(); run.merge(); run.load_data(); run.check_data()
run.train(); run.evaluate(); run.save()
"""


def in_own_process(root: Path, values: dict[str, Any]) -> subprocess.Popen[str]:
    home = root / "temp"
    shutil.copytree(PACKAGE, home / "kchain_runtime", ignore=shutil.ignore_patterns("__pycache__"))
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, json.dumps(values)],
        cwd=root / "temp",
        env={**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_a_session_imports_nothing_before_the_install_and_killed_in_the_middle_it_looks_failed(kaggle: Path) -> None:
    process = in_own_process(kaggle, parameters(training__epochs=100_000, training__logging_steps=1))
    assert process.stdout is not None
    out = ""
    for line in process.stdout:
        out += line
        if '"event": "step"' in line:
            break
    process.send_signal(signal.SIGKILL)
    _, err = process.communicate(timeout=300)
    assert "imported before the install is over: []" in out, err[-3000:]
    result = read_result(kaggle)
    assert result["status"] == "failed"
    assert "ended during train" in result["reason"]
    assert result["adapter"] is None
