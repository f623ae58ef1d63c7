"""Check 7: useful tokens a second beside other stacks, on a 0.5 B in true shape, all with a T4's attention kernels.

kchain runs as a notebook runs it; the others in one process of their own, with kchain's settings of the Trainer, the
same weights, the same adapter and the same examples in every step. TRL's packing puts other examples into a step.
Steps of new lengths have kernels loaded and plans made, so speeds are those of the median step.
"""

from __future__ import annotations

import functools
import gc
import importlib.util
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from .bench import Bench, part
from .findings import Findings
from .runs import FIRST_WORD, PAD, apart, parameters, train
from .shapes import words

STEPS, WARM_UP, BATCH, ACCUMULATION = 10, 3, 8, 2
LONGEST = 2048
# Lengths of examples: median and spread of a lognormal. The first is of shared measurements of instruction data.
MIXES = {"short": (119, 0.9), "long": (600, 0.6)}
SETTINGS: dict[str, Any] = {
    "training__batch": BATCH,
    "training__accumulation": ACCUMULATION,
    "training__learning_rate": 2e-4,
}
# Seconds that the other stacks may take, that a process takes to begin, and one side at the most.
SECONDS, IMPORTING, ONE_SIDE = 150.0, 15.0, 25.0


def speed(bench: Bench, found: Findings) -> None:
    """Check 7, alone on the card."""
    base, count = bench.model("half"), words("half", not bench.cuda)
    ours: dict[str, dict[str, Any]] = {}
    for mix in MIXES:
        ours[mix] = _ours(bench, mix, t4=True)
    if bench.cuda:
        own = _ours(bench, "short", t4=False)
        found.tell(**{"short, kchain with this card's own kernels": {"tokens/s": round(own["tokens_per_second"])}})
    allowed = bench.left(SECONDS)
    others = part(bench, "speed", str(base), bench.precision, str(count), str(allowed - IMPORTING), seconds=allowed)
    for mix in MIXES:
        sides = {"kchain": ours[mix], **{name: side.get(mix, side) for name, side in others.items()}}
        for name, side in sides.items():
            _compare(found, mix, name, side, ours[mix])
        if bench.cuda and "tokens_per_second" in sides["Trainer"]:
            ratio = ours[mix]["tokens_per_second"] / sides["Trainer"]["tokens_per_second"]
            found.tell(**{f"{mix}: kchain/Trainer": round(ratio, 2)})
            found.must(f"{mix}: at least as fast as the Trainer", ratio >= 1.0)
    if not bench.cuda:
        found.skip("who is faster is a question to a card")
    for name, side in others.items():
        if why := side.get("skipped"):
            found.skip(f"{name}: {why}")


def _ours(bench: Bench, mix: str, t4: bool) -> dict[str, Any]:
    """kchain's own figures."""
    examples = mixed(mix, words("half", not bench.cuda), bench.cuda)
    name = f"speed-{mix}" + ("" if t4 else "-own")
    run = train(bench, name, bench.model("half"), examples, {"memory": None, "t4": t4}, **SETTINGS)
    seen = run.last()
    seconds = {event["step"]: event["seconds"] for event in run.events if event["event"] == "step"}
    spent = [later - earlier for earlier, later in pairwise([0.0, *(seconds[step] for step in sorted(seconds))])]
    return _told(spent, run.losses, tokens_of(examples), seen["peak"])


def _compare(found: Findings, mix: str, name: str, side: dict[str, Any], ours: dict[str, Any]) -> None:
    if "tokens_per_second" not in side:
        return
    figures = {"tokens/s": round(side["tokens_per_second"]), "peak": side["peak"]}
    if "steps_differ" not in side:
        far = apart({int(step): loss for step, loss in side["losses"].items()}, ours["losses"])
        figures["losses_apart"] = far
        if name in ("Trainer", "Trainer + Liger", "TRL"):
            found.must(f"{mix}: losses of {name} to 1e-3", far <= 1e-3)
    found.tell(**{f"{mix}, {name}": figures})


def mixed(mix: str, count: int, cuda: bool) -> list[Any]:
    """Examples of lognormal lengths, 70 % of each learned."""
    import numpy as np

    from kchain.runtime.encode import IGNORED, Encoded

    chance, made = np.random.default_rng(3), []
    median, spread = MIXES[mix]
    scale = 1.0 if cuda else 0.1
    for drawn in chance.lognormal(np.log(median * scale), spread, STEPS * BATCH * ACCUMULATION):
        length = int(min(LONGEST * scale, max(8, drawn)))
        ids = chance.integers(FIRST_WORD, count, length).astype(np.int32)
        labels = ids.copy()
        labels[: int(length * 0.3)] = IGNORED
        made.append(Encoded(ids, labels))
    return made


def tokens_of(examples: Sequence[Any]) -> list[int]:
    """Tokens of each step, none of them padding, in kchain's order."""
    return [sum(len(examples[index]) for index in step) for step in in_order(examples)]


def in_order(examples: Sequence[Any]) -> list[list[int]]:
    """The examples of each step, as kchain orders them."""
    from kchain.runtime.batches import Order, Share

    share = Share(BATCH * ACCUMULATION, BATCH)
    order = Order([len(example) for example in examples], parameters(False)["seed"], share, True)
    return [order.examples(step) for step in range(STEPS)]


def _told(spent: Sequence[float], losses: dict[int, float], tokens: Sequence[int], peak: Any) -> dict[str, Any]:
    """Speed of the median step behind the warm-up."""
    speed = median(count / seconds for count, seconds in zip(tokens[WARM_UP:], spent[WARM_UP:], strict=True))
    return {"tokens_per_second": speed, "losses": losses, "peak": peak}


# --- the part "speed": other stacks, in a process of its own


def main(folder: str, base: str, precision: str, count: str, seconds: str) -> dict[str, Any]:
    """Every side on every mix; what fails or is not installed says so."""
    import torch

    began, cuda = time.monotonic(), torch.cuda.is_available()
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
    sides: dict[str, tuple[str | None, Callable[..., Any]]] = {
        "Trainer": (None, _trainer),
        "TRL": ("trl", _trl),
        "TRL, padding_free": ("trl", functools.partial(_trl, padding_free=True, max_length=None)),
        "TRL, packing": ("trl", functools.partial(_trl, packing=True)),
        "Trainer + Liger": ("liger_kernel", functools.partial(_trainer, liger=True)),  # last: it changes classes
    }
    found: dict[str, Any] = {}
    for name, (package, make) in sides.items():
        found[name] = {}
        if package and importlib.util.find_spec(package) is None:
            found[name] = {"skipped": f"{package} is not installed"}
        elif package == "liger_kernel" and not cuda:
            found[name] = {"skipped": "its kernels need a CUDA card"}
        elif time.monotonic() - began > float(seconds) - ONE_SIDE:
            found[name] = {"skipped": "no time was left"}
        else:
            for mix in MIXES:
                try:
                    examples = mixed(mix, int(count), cuda)
                    found[name][mix] = _measure(make, Path(base), precision, examples, f"{folder}/runs/{name}-{mix}")
                except Exception as error:  # another stack's failure is a figure too
                    found[name] = {"skipped": f"{mix}: {type(error).__name__}: {str(error)[:200]}"}
                    break
                finally:
                    gc.collect()
                    if cuda:
                        torch.cuda.empty_cache()
    return found


def _measure(make: Callable[..., Any], base: Path, precision: str, examples: list[Any], folder: str) -> dict[str, Any]:
    import torch
    from transformers import PrinterCallback, TrainerCallback

    from kchain.runtime import model as models
    from kchain.runtime import train as training
    from kchain.runtime.batches import Share

    cuda = torch.cuda.is_available()
    values = parameters(cuda, **SETTINGS, training__precision=precision)
    bare = models.load_base(base, precision, "none")
    adapted = models.add_lora(bare, values["lora"], values["seed"])
    trainer = make(adapted, training.arguments(values, Path(folder), Share(BATCH * ACCUMULATION, BATCH)), examples)
    times: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter())

    trainer.add_callback(Clock())
    trainer.remove_callback(PrinterCallback)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    trainer.train()
    losses = {line["step"]: line["loss"] for line in trainer.state.log_history if "loss" in line}
    peak = torch.cuda.max_memory_allocated() if cuda else None
    spent = [later - earlier for earlier, later in pairwise([begin, *times])]
    if len(times) == STEPS:
        return _told(spent, losses, tokens_of(examples), peak)
    if len(times) < 4:
        raise RuntimeError(f"packed into {len(times)} steps, too few to be timed")
    # Packed into other steps, all of them of nearly as many tokens.
    speed = sum(map(len, examples)) / len(times) / median(spent[2:])
    return {"tokens_per_second": speed, "losses": losses, "peak": peak, "steps_differ": len(times)}


def _trainer(model: Any, args: Any, examples: list[Any], liger: bool = False) -> Any:
    """transformers' Trainer with dynamic padding; its logits are whole, or Liger's loss."""
    from torch.utils.data import DataLoader
    from transformers import Trainer

    from kchain.runtime.batches import Collator

    batches = [step[begin : begin + BATCH] for step in in_order(examples) for begin in range(0, len(step), BATCH)]

    class Ordered(Trainer):  # type: ignore[misc]
        def get_train_dataloader(self) -> Any:
            return DataLoader(examples, batch_sampler=batches, collate_fn=self.data_collator)  # type: ignore[arg-type]

    args.use_liger_kernel = liger
    return Ordered(model=model, args=args, train_dataset=examples, data_collator=Collator(PAD, keep=False))


def _trl(model: Any, args: Any, examples: list[Any], packing: bool = False, **options: Any) -> Any:
    """TRL's SFTTrainer on examples that are encoded already, in kchain's order."""
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from torch.utils.data import SequentialSampler
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    taken = (
        "output_dir", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps",
        "learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "optim", "fp16", "bf16", "use_cpu",
        "gradient_checkpointing", "gradient_checkpointing_kwargs", "logging_steps", "save_strategy", "report_to",
        "disable_tqdm", "seed", "dataloader_pin_memory", "remove_unused_columns", "label_names",
    )  # fmt: skip
    words = Tokenizer(models.WordLevel({"<pad>": 0}, unk_token="<pad>"))
    ordered = [examples[index] for step in in_order(examples) for index in step]
    rows = {"input_ids": [e.ids.tolist() for e in ordered], "labels": [e.labels.tolist() for e in ordered]}
    prepared = {} if packing else {"dataset_kwargs": {"skip_prepare_dataset": True}}
    settings = {name: getattr(args, name) for name in taken}
    if packing:  # its rows are full: one of them is about what a padded batch learns
        settings |= {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    config = SFTConfig(**settings, **{"max_length": LONGEST, "packing": packing, **prepared, **options})

    class Ordered(SFTTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset if dataset is None else dataset)

    return Ordered(
        model=model,
        args=config,
        train_dataset=Dataset.from_dict(rows),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<pad>"),
    )
