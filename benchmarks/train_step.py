"""Training steps as kchain does them, against the recipe the field uses: HF Trainer, dynamic padding, full logits.

Same model, same examples of lognormal length in the same order, same adapter, 2 x 8 examples a step; each side in a
process of its own, so that its peak memory is its own. The losses must agree to 1e-5, or the comparison says so and
fails. TRL's SFTTrainer is a third side where it is installed. A last, profiled run says what kchain's time goes into.
`python benchmarks/train_step.py [--json]`
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BATCH, ACCUMULATION = 2, 8
# "roomy" is kchain without checkpointing, which its plan turns off where the memory that the loss saves makes room.
SIDES = ("padded", "trl", "kchain", "roomy")
PROFILED = 48  # examples of the profiled run; profiling slows a step and keeps every operation in memory
NAMED = 6  # kinds of operations that the shares name
# What an operation of torch is counted as, by what its name contains; the first that fits.
KINDS = {
    "matrix products": ("mm", "attention"),
    "softmax, loss": ("softmax", "log_softmax", "logsumexp", "nll", "exp", "gather", "max"),
    "optimizer": ("Optimizer", "adam", "foreach"),
}
# Lengths as in shared measurements of instruction data: median 119 tokens, mean 179, none above 2048.
MEDIAN, SPREAD, LONGEST, SHORTEST = 119, 0.9, 2048, 8
TOLERANCE = 1e-5  # of the losses, relative


@dataclass(frozen=True)
class Case:
    """A model's shape, and the share of each example that is learned."""

    title: str
    vocabulary: int
    width: int
    layers: int
    learned: float


CASES = {
    "head": Case("head-dominated: 151,936 words, tiny body, all tokens learned", 151_936, 64, 2, 1.0),
    "body": Case("body-dominated: 2,000 words, 512 wide, 6 layers, all tokens learned", 2_000, 512, 6, 1.0),
    "answers": Case("prompt/completion: 151,936 words, tiny body, the last 20 % learned", 151_936, 64, 2, 0.2),
}


def main() -> int:
    """Runs both sides of every case, prints a table and, with --json, one object on the last line."""
    options = _options()
    if options.side:
        print(json.dumps(run_side(CASES[options.cases[0]], options.side, options.examples)))
        return 0
    found = {name: compare(name, options.examples) for name in options.cases}
    print_table(found)
    if options.json:
        print(json.dumps(found))
    return 0 if all(result["same_losses"] for result in found.values()) else 1


def compare(name: str, examples: int) -> dict[str, Any]:
    """Both sides of a case, one after the other, and their ratios."""
    have_trl = importlib.util.find_spec("trl") is not None
    sides = {side: _in_own_process(name, side, examples) for side in SIDES if side != "trl" or have_trl}
    padded, ours, roomy, trl = sides["padded"], sides["kchain"], sides["roomy"], sides.get("trl")
    pairs = [pair for side in (ours, roomy) for pair in zip(padded["losses"], side["losses"], strict=True)]
    apart = max(abs(a - b) / a for a, b in pairs)
    return {
        "title": CASES[name].title,
        "tokens_per_second_ratio": ours["tokens_per_second"] / padded["tokens_per_second"],
        "cpu_time_ratio": padded["cpu_seconds"] / ours["cpu_seconds"],  # what a busy machine does not blur
        "peak_memory_ratio": ours["peak_bytes"] / padded["peak_bytes"],
        "training_memory_ratio": ours["training_bytes"] / padded["training_bytes"],
        "loss_difference": apart,
        "same_losses": apart <= TOLERANCE,
        "roomy_tokens_per_second_ratio": roomy["tokens_per_second"] / padded["tokens_per_second"],
        "roomy_peak_memory_ratio": roomy["peak_bytes"] / padded["peak_bytes"],
        "trl_tokens_per_second_ratio": ours["tokens_per_second"] / trl["tokens_per_second"] if trl else None,
        "trl_peak_memory_ratio": ours["peak_bytes"] / trl["peak_bytes"] if trl else None,
        "examples": examples,
        "sides": sides,
        "shares": _in_own_process(name, "profile", min(examples, PROFILED)),
    }


def run_side(case: Case, side: str, count: int) -> dict[str, Any]:
    """Trains one epoch on one side.

    Returns:
        Useful tokens per second (padding is not useful), peak memory of the process in bytes and what of it came with
        the training, loss of every step, seconds.
    """
    sys.path.insert(0, str(ROOT))
    from transformers import PrinterCallback, Trainer, TrainingArguments
    from transformers.utils import logging

    from kchain.runtime.failure import peak_memory

    logging.set_verbosity_error()
    examples = make_examples(case, count)
    model, collate = make_side(case, side)
    before = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        if side == "trl":
            trainer = make_trl(model, examples, folder)
        else:
            settings = TrainingArguments(output_dir=folder, **arguments(checkpointing=side != "roomy"))
            trainer = Trainer(model=model, args=settings, train_dataset=examples, data_collator=collate)
        trainer.remove_callback(PrinterCallback)
        if side == "profile":
            return profile(trainer)
        begin, begin_cpu = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - begin_cpu
    tokens = sum(len(example) for example in examples)
    return {
        "tokens_per_second": tokens / seconds,
        "peak_bytes": peak_memory(),
        "training_bytes": peak_memory() - before,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "tokens": tokens,
        "losses": [line["loss"] for line in trainer.state.log_history if "loss" in line],
    }


def make_side(case: Case, side: str) -> tuple[Any, Any]:
    """The model with its adapter, and the collator of a side."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from kchain.runtime import model as models
    from kchain.runtime import train
    from kchain.runtime.batches import Collator

    torch.manual_seed(0)
    shape = {"hidden_size": case.width, "intermediate_size": 4 * case.width, "num_hidden_layers": case.layers}
    heads = {"num_attention_heads": case.width // 32, "num_key_value_heads": case.width // 64}
    base = Qwen2ForCausalLM(Qwen2Config(vocab_size=case.vocabulary, tie_word_embeddings=True, **shape, **heads))
    base.to("cuda" if torch.cuda.is_available() else "cpu")
    base.config.use_cache = False
    collate = train.prepare(base, 0) if side in ("kchain", "roomy", "profile") else Collator(0, keep=False)
    lora = {"r": 16, "alpha": 32, "dropout": 0.0, "bias": "none", "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}
    return models.add_lora(base, lora, seed=0), collate


def make_examples(case: Case, count: int) -> list[Any]:
    """Random ids of lognormal length; the end of each is learned."""
    import numpy as np

    from kchain.runtime.encode import IGNORED, Encoded

    chance, made = np.random.default_rng(0), []
    for drawn in chance.lognormal(np.log(MEDIAN), SPREAD, count):
        length = int(min(LONGEST, max(SHORTEST, drawn)))
        ids = chance.integers(0, case.vocabulary, length).astype(np.int32)
        labels = ids.copy()
        labels[: length - max(1, int(length * case.learned))] = IGNORED
        made.append(Encoded(ids, labels))
    return made


def arguments(checkpointing: bool = True) -> dict[str, Any]:
    """The Trainer's settings, the same on all sides but for checkpointing."""
    import torch

    on_gpu = torch.cuda.is_available()
    return {
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": ACCUMULATION,
        "num_train_epochs": 1,
        "learning_rate": 2e-4,
        "logging_steps": 1,
        "gradient_checkpointing": checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False} if checkpointing else None,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        "remove_unused_columns": False,
        "label_names": ["labels"],
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def make_trl(model: Any, examples: list[Any], folder: str) -> Any:
    """TRL's SFTTrainer as it comes (its own collator and its own loss), on examples that are encoded already."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    words = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    rows = {"input_ids": [e.ids.tolist() for e in examples], "labels": [e.labels.tolist() for e in examples]}
    config = SFTConfig(
        folder,
        max_length=LONGEST,
        packing=False,
        bf16=False,
        dataset_kwargs={"skip_prepare_dataset": True},
        **arguments(),
    )
    return SFTTrainer(
        model=model,
        args=config,
        train_dataset=Dataset.from_dict(rows),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<pad>"),
    )


def profile(trainer: Any) -> dict[str, float]:
    """The share of each kind of operation in the time that torch spends in its operations, largest first."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as recording

    with recording(activities=[ProfilerActivity.CPU]) as recorded:
        trainer.train()
    spent: dict[str, float] = {}
    for event in recorded.key_averages():
        name = event.key
        if not name.startswith("aten::") and "Optimizer" not in name:
            continue
        kind = next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), name)
        spent[kind] = spent.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(spent.values())
    largest = {kind: time / total for kind, time in sorted(spent.items(), key=lambda item: -item[1])[:NAMED]}
    return {**largest, "the rest": 1 - sum(largest.values())}


def print_table(found: dict[str, dict[str, Any]]) -> None:
    """For people: both sides of each case, and the ratios."""
    if not all("trl" in result["sides"] for result in found.values()):
        print("TRL is not installed, and so not among the sides; it is no dependency of kchain.")
    for result in found.values():
        print(f"\n{result['title']}; {result['examples']} examples")
        print(f"{'':10}{'tokens/s':>10}{'peak':>10}{'training':>10}{'seconds':>10}{'CPU s':>8}", end="")
        print(f"{'first loss':>12}{'last loss':>12}")
        for name, side in result["sides"].items():
            peak, training = (f"{side[key] / 2**20:.0f} MiB" for key in ("peak_bytes", "training_bytes"))
            speed, ends = f"{side['tokens_per_second']:.0f}", (side["losses"][0], side["losses"][-1])
            print(
                f"{name:10}{speed:>10}{peak:>10}{training:>10}{side['seconds']:>10.1f}{side['cpu_seconds']:>8.1f}",
                end="",
            )
            print("".join(f"{loss:>12.6f}" for loss in ends))
        ratios = [result[f"{key}_ratio"] for key in ("tokens_per_second", "peak_memory", "training_memory")]
        print("ratio     {:>9.2f}x{:>9.1%} {:>9.1%}".format(*ratios), end="")
        print(
            f"    CPU time {result['cpu_time_ratio']:.2f}x, losses differ by {result['loss_difference']:.1e}"
            + ("" if result["same_losses"] else ": TOO MUCH")
        )
        print(
            "without checkpointing {:.2f}x, {:.1%} of the peak".format(
                result["roomy_tokens_per_second_ratio"], result["roomy_peak_memory_ratio"]
            )
        )
        print("kchain's time: " + ", ".join(f"{kind} {share:.0%}" for kind, share in result["shares"].items()))


def _in_own_process(name: str, side: str, examples: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--side", side, "--cases", name, "--examples", str(examples)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--examples", type=int, default=400)
    parser.add_argument("--json", action="store_true", help="one object with the ratios, on the last line")
    parser.add_argument("--side", choices=[*SIDES, "profile"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
