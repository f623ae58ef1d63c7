"""How a training ends that does not reach its end: short memory, a hang, a kill, Ctrl-C, a dead notebook."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from runtime_tiny import events_in
from runtime_workers import losses, make_folder, make_job, random_examples, said, small_base, start_driver
from safetensors.torch import load_file, save_file

SECONDS = 300

# The memory of the process is really limited, to what it has and a little more: torch's own allocator then fails.
LIMIT = """
import resource

def limit(more):
    words = open("/proc/self/statm").read().split()
    resource.setrlimit(resource.RLIMIT_AS, (int(words[0]) * resource.getpagesize() + more,) * 2)
"""
FROM_THE_START = f"""{LIMIT}
unlimited = train

def train(model, examples, collate, job, folder, rank):
    limit(MORE)
    return unlimited(model, examples, collate, job, folder, rank)
"""
AT_THE_FOURTH_STEP = f"""{LIMIT}
unlimited_step = Steady.training_step

def limited_step(self, *args, **kwargs):
    if self.state.global_step == 3 and self.order.share.batch == 2 and self.order.share.rank == 0:
        limit(2**20)
    return unlimited_step(self, *args, **kwargs)

Steady.training_step = limited_step
"""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_base(tmp_path_factory.mktemp("small") / "base")


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose activations take memory: 16 MiB for each tensor of 64 tokens in its middle."""
    return small_base(tmp_path_factory.mktemp("wide") / "base", intermediate_size=2**16, num_hidden_layers=1)


def end(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
    assert "trained: " in out or "stopped: " in out, err[-3000:]
    return out, err


@pytest.mark.slow
def test_a_batch_that_does_not_fit_is_halved_before_the_first_step_and_the_steps_stay_the_same(
    tmp_path: Path, wide: Path
) -> None:
    examples = random_examples(8, 250, 256)
    plain = start_driver(make_folder(tmp_path / "plain", examples), make_job(wide))
    expected = losses(events_in(end(plain)[0]))
    (tmp_path / "limited").mkdir()
    folder = make_folder(tmp_path / "limited" / "training", examples)
    limit = FROM_THE_START.replace("MORE", str(900 * 2**20))
    out, _ = end(start_driver(folder, make_job(wide, batch=4), train=limit))
    steps, batch, recovered = said(out, "trained")
    assert (steps, batch) == (2, 2)
    (event,) = (event for event in events_in(out) if event["event"] == "oom")
    assert recovered == [event]
    assert (event["before"], event["batch"], event["accumulation"], event["step"]) == (4, 2, 2, 0)
    assert "can't allocate memory" in event["reason"]
    found = losses(events_in(out))
    assert max(abs(found[step] - expected[step]) for step in (1, 2)) < 1e-5


@pytest.mark.slow
def test_one_example_that_does_not_fit_stops_with_what_helps(tmp_path: Path, wide: Path) -> None:
    folder = make_folder(tmp_path / "training", random_examples(4, 250, 256))
    limit = FROM_THE_START.replace("MORE", str(50 * 2**20))
    out, _ = end(start_driver(folder, make_job(wide, batch=1), train=limit))
    reason, cure = said(out, "stopped")
    assert reason.startswith("one example at a time does not fit")
    assert all(words in cure for words in ("max_length", "nf4", "checkpointing"))


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_memory_that_runs_out_later_goes_on_from_the_last_checkpoint_with_the_same_steps(
    tmp_path: Path, wide: Path, processes: int
) -> None:
    examples = random_examples(8, 120, 128)
    job = make_job(wide, processes=processes, training__epochs=3)  # 2 steps an epoch
    expected = losses(events_in(end(start_driver(make_folder(tmp_path / "plain", examples), job))[0]))
    (tmp_path / "limited").mkdir()
    folder = make_folder(tmp_path / "limited" / "training", examples)
    out, _ = end(start_driver(folder, job, train=AT_THE_FOURTH_STEP))
    steps, batch, recovered = said(out, "trained")
    assert (steps, batch) == (6, 1)
    assert (recovered[0]["step"], recovered[0]["again_from"], recovered[0]["accumulation"]) == (3, 2, 4)
    found = losses(events_in(out))
    assert max(abs(found[step] - expected[step]) for step in expected) < 1e-5


HANG = """
import time

def hang(self, batch):
    time.sleep(600)

Collator.__call__ = hang
"""
SOON = "HANGING_SECONDS = 2.0\nHANGING = 0"


@pytest.mark.slow
def test_a_step_that_hangs_is_ended_and_the_log_shows_where(tmp_path: Path, small: Path) -> None:
    folder = make_folder(tmp_path / "training", random_examples(4))
    out, err = end(start_driver(folder, make_job(small), batches=HANG, watch=SOON))
    assert "hung" in said(out, "stopped")[0]
    assert "Timeout" in err
    assert "most recent call first" in err
    assert "in hang" in err


def workers(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that train, once the first step is told."""
    assert process.stdout is not None
    for line in process.stdout:
        if '"event": "step"' in line:
            break
    return [each for each in psutil.Process(process.pid).children(recursive=True) if "worker" in str(each.cmdline())]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_no_process_outlives_a_notebook_that_was_killed(tmp_path: Path, small: Path, processes: int) -> None:
    job = make_job(small, processes=processes, training__epochs=100_000)
    process = start_driver(make_folder(tmp_path / "training", random_examples(8)), job)
    running = workers(process)
    assert len(running) >= processes
    process.kill()
    process.communicate(timeout=SECONDS)
    _, alive = psutil.wait_procs(running, timeout=300)
    assert alive == []


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_notebook_ends_its_training(tmp_path: Path, small: Path, processes: int) -> None:
    job = make_job(small, processes=processes, training__epochs=100_000)
    process = start_driver(make_folder(tmp_path / "training", random_examples(8)), job)
    running = workers(process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert "KeyboardInterrupt" in err
    _, alive = psutil.wait_procs(running, timeout=300)
    assert alive == []


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_training_that_the_system_killed_is_told_as_short_of_the_machines_memory(
    tmp_path: Path, small: Path, processes: int
) -> None:
    job = make_job(small, processes=processes, training__epochs=100_000)
    process = start_driver(make_folder(tmp_path / "training", random_examples(8)), job)
    [each for each in workers(process) if "torch.distributed.run" not in each.cmdline()][-1].kill()
    out, _ = end(process)
    reason, cure = said(out, "stopped")
    assert "out of host memory" in reason
    assert "max_examples" in cure


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_loss_that_is_no_number_names_the_examples_and_the_likely_cause(
    tmp_path: Path, small: Path, processes: int
) -> None:
    poison = """
clean_step = Trainer.training_step

def poisoned_step(self, model, inputs, *args, **kwargs):
    loss = clean_step(self, model, inputs, *args, **kwargs)
    return loss * float("nan") if 199 in inputs["input_ids"] else loss

Trainer.training_step = poisoned_step
"""
    examples = random_examples(8)
    for example in examples:
        example.ids[example.ids == 199] = 198
    examples[5].ids[0] = 199
    job = make_job(small, processes=processes, training__batch=1, training__accumulation=8, batch=1)
    out, _ = end(start_driver(make_folder(tmp_path / "training", examples), job, train=poison))
    reason, cure = said(out, "stopped")
    assert reason == "the loss is nan at step 1, in 1 of its examples: example 5"
    assert "unlike the others" in cure


# Half precision trains on a GPU only: here the settings say so, and the arithmetic stays what it is.
HALF = """
whole = arguments

def arguments(*args):
    settings = whole(*args)
    settings.fp16 = True
    return settings
"""


@pytest.mark.slow
@pytest.mark.parametrize(("added", "word"), [("", "base model"), (HALF, "bf16")])
def test_a_model_that_computes_no_number_is_told_as_such_before_the_first_step(
    tmp_path: Path, added: str, word: str
) -> None:
    base = small_base(tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][3] = float("inf")
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    out, _ = end(start_driver(make_folder(tmp_path / "training", random_examples(8)), make_job(base), train=added))
    reason, cure = said(out, "stopped")
    assert "computes no number before the first step" in reason
    assert ("fp16" in reason) == bool(added)
    assert word in cure
    assert losses(events_in(out)) == {}
