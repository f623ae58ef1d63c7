"""What the tests of the training processes build: a model of 211 words, random examples, jobs, and the launcher."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from runtime_tiny import parameters
from runtime_warm import warm

from kchain.runtime import handover, launch
from kchain.runtime.encode import IGNORED, Encoded

PACKAGE = Path(launch.__file__).parent
WORDS, PAD = 211, {"token": "<end>", "id": 2}


def small_base(folder: Path, **changes: Any) -> Path:
    """A two-layer Qwen2 of few words: what takes time in these tests is starting processes."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(7)
    sizes: dict[str, Any] = {
        "vocab_size": WORDS,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    Qwen2ForCausalLM(Qwen2Config(**{**sizes, **changes})).save_pretrained(folder)
    return folder


def random_examples(count: int, shortest: int = 4, longest: int = 40) -> list[Encoded]:
    """Examples of random lengths whose last two thirds are learned."""
    chance = np.random.default_rng(5)
    made = []
    for length in chance.integers(shortest, longest + 1, count):
        ids = chance.integers(3, WORDS, length).astype(np.int32)
        labels = ids.copy()
        labels[: length // 3] = IGNORED
        made.append(Encoded(ids, labels))
    return made


def make_job(base: Path, **changes: Any) -> handover.Job:
    """A job of two examples at a time, four a step, that tells every loss; the other changes are of PARAMETERS."""
    fields = {field.name for field in dataclasses.fields(handover.Job)}
    ours = {name: changes.pop(name) for name in list(changes) if name not in fields}
    values = parameters(
        **{"training__accumulation": 2, "training__logging_steps": 1, "lora__dropout": 0.0, **ours}, pad=PAD
    )
    job: dict[str, Any] = {
        "parameters": values,
        "base": str(base),
        "batch": values["training"]["batch"],
        "processes": 1,
        "checkpoint": None,
        "deadline": time.monotonic() + 3600,
        "step_seconds": 60.0,
        "logs": str(base.parent / "logs"),
        "continued": None,
        "rows": [],
    }
    return handover.Job(**{**job, **changes})


def make_folder(folder: Path, examples: list[Encoded]) -> Path:
    """The folder of a training, with its examples."""
    folder.mkdir()
    handover.write_examples(folder, examples)
    return folder


def about(index: int) -> str:
    """What a failure says about an example."""
    return f"example {index}"


def train(folder: Path, job: handover.Job) -> launch.Trained:
    """The launcher, called from here."""
    with warm():
        return launch.train(folder, job, about)


def losses(events: list[dict[str, Any]]) -> dict[int, float]:
    """The loss of each step that was told; a step that was trained again stands with its last one."""
    return {event["step"]: event["loss"] for event in events if event["event"] == "step"}


def apart(one: dict[int, float], other: dict[int, float]) -> float:
    """The largest difference of two runs' losses, which must be of the same steps."""
    assert one.keys() == other.keys()
    return max(abs(one[step] - other[step]) for step in one)


# The launcher, called from a process of its own, as a notebook calls it: with a copy of the package, whose modules a
# test may change, since a module of a process that is still to be started cannot be reached from here.
DRIVER = """
import json, sys
from pathlib import Path
from kchain_runtime import handover, launch
from kchain_runtime.failure import Stop
try:
    folder = Path(sys.argv[1])
    trained = launch.train(folder, handover.read_job(folder), lambda index: f"example {index}")
    print("trained:", json.dumps([trained.outcome.steps, trained.job.batch, trained.recovered]))
except Stop as stop:
    print("stopped:", json.dumps([stop.reason, stop.cure]))
"""


def start_driver(folder: Path, job: handover.Job, **added: str) -> subprocess.Popen[str]:
    """Starts the launcher over a folder; `added` is code for the end of modules, by their names."""
    home = folder.parent / "home"
    shutil.copytree(PACKAGE, home / "kchain_runtime", ignore=shutil.ignore_patterns("__pycache__"))
    for name, code in added.items():
        with (home / "kchain_runtime" / f"{name}.py").open("a") as file:
            file.write(f"\n\n{code}\n")
    handover.write_job(folder, job)
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder)],
        env={**os.environ, "PYTHONPATH": str(home), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def said(out: str, word: str) -> Any:
    """What the driver said at its end."""
    line = next(line for line in out.splitlines() if line.startswith(f"{word}: "))
    return json.loads(line.removeprefix(f"{word}: "))
