"""The training itself: a plain transformers.Trainer over our own order of examples."""

from __future__ import annotations

import faulthandler
import inspect
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from .batches import Collator, Order, Share
from .encode import Encoded
from .failure import OutOfMemory, Stop, emit, out_of_memory, peak_memory
from .handover import CHECKPOINTS, Job, Outcome, nothing
from .loss import can_pack, spare_logits
from .watch import Board, Watch, losses, mind_hanging, step_limit

# The scaler begins at 2^16 and halves at every overflow: after so many in a row it is below any gradient's use.
MOST_SKIPPED = 20


class Steady(Trainer):  # type: ignore[misc,unused-ignore]
    """A Trainer whose steps are made of the examples that `order` says, in every process and on every machine."""

    order: Order

    def __init__(self, order: Order, **options: Any) -> None:
        super().__init__(**options)
        self.order = order
        self.micro: list[torch.Tensor] = []  # losses of the batches of the step that runs

    def get_train_dataloader(self) -> Any:
        """One process's batches; nothing shards them again."""
        examples: Any = self.train_dataset
        return DataLoader(
            examples,
            batch_sampler=self.order,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Keeps the loss of each batch until the step is over."""
        loss = super().training_step(*args, **kwargs)
        self.micro.append(loss)
        return loss

    def blame(self, step: int) -> tuple[list[int], bool]:
        """Examples of a step, counted from 0, in batches whose loss is not finite, and whether that is all batches.

        All processes must call it.
        """
        share, batches = self.order.share, self.order.batches(step)
        mine = [not bool(torch.isfinite(loss)) for loss in self.micro]
        bad: list[Any] = [mine]
        if share.processes > 1:
            bad = [None] * share.processes
            torch.distributed.all_gather_object(bad, mine)
        guilty = [
            batches[number * share.processes + rank]
            for rank, flags in enumerate(bad)
            for number, is_bad in enumerate(flags)
            if is_bad
        ]
        examples = sorted(index for batch in guilty for index in batch)
        return examples, len(examples) == len(self.order.examples(step))


class Steps(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Keeps the order in step with the Trainer, and tries the heaviest batch before the first step.

    Attributes:
        skipped: steps of this session whose gradients overflowed in fp16, so that nothing was changed.
    """

    def __init__(self, trainer: Steady, seed: int) -> None:
        self.trainer = trainer
        self.seed = seed
        self.skipped = self.in_a_row = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Finds out now, not hours later, whether the batch fits."""
        # Every process drops other weights out. A run that goes on takes the generators of its checkpoint instead.
        torch.manual_seed(self.seed + self.trainer.order.share.rank)
        # A checkpoint keeps bitsandbytes' mark of paged memory, but not the pages. State that is loaded straight onto a
        # GPU, as several processes do it, would keep the mark, and fetching pages that are none ends the process in C.
        optimizer: Any = self.trainer.optimizer
        for values in optimizer.state.values():
            for value in values.values():
                if getattr(value, "is_paged", False):
                    value.is_paged = False
        try_heaviest(self.trainer, state.max_steps)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """The order is iterated over next."""
        self.trainer.order.epoch = state.global_step // self.trainer.order.steps

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begins to collect losses."""
        self.trainer.micro.clear()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Counts steps that the gradient scaler skipped; all processes see the same gradients."""
        skipped = bool(self.trainer.accelerator.optimizer_step_was_skipped)
        self.skipped += skipped
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        if self.in_a_row >= MOST_SKIPPED:
            raise Stop(
                f"{MOST_SKIPPED} steps up to step {state.global_step} changed nothing: gradients overflow in fp16",
                "lower training.learning_rate, look at the data of the phase, or use a machine with bf16",
            )


def try_heaviest(trainer: Steady, steps: int) -> None:
    """One forward and backward pass over the heaviest batch of the run; gradients and generators are as before."""
    batch = trainer.order.heaviest(steps)
    model = trainer.model_wrapped
    examples: Any = trainer.train_dataset
    inputs = trainer.data_collator([examples[index] for index in batch])
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    # Each process by itself: one that fails must not leave another waiting.
    with torch.random.fork_rng(devices), trainer.accelerator.no_sync(model=model):
        loss = trainer.training_step(model, inputs, torch.tensor(1, device=trainer.args.device))
        if not torch.isfinite(loss):
            _must_compute(trainer, batch)
    model.zero_grad()
    emit("fits", batch=len(batch), tokens=trainer.order.weight(batch), memory_bytes=peak_memory())


@torch.no_grad()
def _must_compute(trainer: Steady, batch: Sequence[int]) -> None:
    """Tells a model that computes no numbers from an example that is unlike the others, which its own step will name.

    Raises:
        Stop: no example of the batch has a loss that is a number, nor has the shortest one.
    """
    lengths = trainer.order.lengths
    examples: Any = trainer.train_dataset
    model: Any = trainer.model
    for index in [*batch, min(range(len(lengths)), key=lengths.__getitem__)]:
        inputs = trainer._prepare_inputs(trainer.data_collator([examples[index]]))
        with trainer.compute_loss_context_manager():
            loss: Any = trainer.compute_loss(model, inputs)
        if torch.isfinite(loss):
            return
    reason = "the model computes no number before the first step, whatever the example: "
    if trainer.args.fp16:
        raise Stop(
            f"{reason}its values go beyond what fp16 can hold (65504)",
            'use a machine with bf16, or set training.precision = "fp32" where the memory allows it',
        )
    raise Stop(f"{reason}its weights hold values that are not numbers", "look at the base model and at the adapters")


def train(model: Any, examples: list[Encoded], collate: Collator, job: Job, folder: Path, rank: int) -> Outcome:
    """Trains the adapter of a PEFT model in place.

    Raises:
        Stop: the loss is no longer finite.
        OutOfMemory: a step does not fit.
    """
    training, seed = job.parameters["training"], job.parameters["seed"]
    share = Share(training["batch"] * training["accumulation"], job.batch, job.processes, rank)
    order = Order([len(example) for example in examples], seed, share, collate.packed)
    trainer = Steady(
        order,
        model=model,
        args=arguments(job.parameters, folder, share),
        train_dataset=[*examples, nothing(collate.pad_id)],
        data_collator=collate,
    )
    watch = Watch(job, folder, rank, order.steps, trainer.blame)
    trainer.remove_callback(PrinterCallback)
    boards: Sequence[Any] = [Board(Path(job.logs))] if rank == 0 else []
    steps = Steps(trainer, seed)
    for callback in (steps, watch, *boards):
        trainer.add_callback(callback)
    _know_cpu_0()
    mind_hanging(folder, rank, step_limit(job.step_seconds))
    try:
        trainer.train(resume_from_checkpoint=job.checkpoint)
    except Exception as error:
        if out_of_memory(error):
            raise OutOfMemory(error, trainer.state.global_step) from error
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()
    return _outcome(trainer.state, watch, training["logging_steps"], steps.skipped)


def _outcome(state: Any, watch: Watch, logging_steps: int, skipped: int) -> Outcome:
    every = losses(state)
    # A run shorter than two windows is halved: first and last must not be the same steps.
    window = min(logging_steps, max(1, len(every) // 2))
    return Outcome(
        steps=state.global_step,
        most_steps=state.max_steps,
        epochs=round(state.epoch or 0.0, 4),
        loss_first=fmean(every[:window]),
        loss_last=fmean(every[-window:]),
        stopped=watch.stopped,
        reason=watch.reason if watch.stopped else None,
        memory=peak_memory(),
        skipped=skipped,
    )


def arguments(parameters: dict[str, Any], folder: Path, share: Share) -> TrainingArguments:
    """The Trainer's settings; only names that transformers 5.0 and 5.23 both have."""
    training = parameters["training"]
    on_gpu = parameters["accelerator"]["gpus"] > 0
    constant = training["scheduler"] == "constant" and training["warmup"] > 0
    return TrainingArguments(
        output_dir=str(folder / CHECKPOINTS),
        num_train_epochs=training["epochs"],
        max_steps=training["max_steps"] or -1,
        per_device_train_batch_size=share.batch,
        gradient_accumulation_steps=share.accumulation,
        average_tokens_across_devices=True,
        # Every trained weight gets a gradient in every step: nothing is looked for, and checkpointing works.
        ddp_find_unused_parameters=False,
        learning_rate=training["learning_rate"],
        lr_scheduler_type="constant_with_warmup" if constant else training["scheduler"],
        warmup_steps=min(training["warmup"], 0.999),  # below 1 it is a share of the steps
        weight_decay=training["weight_decay"],
        optim=training["optimizer"],
        fp16=training["precision"] == "fp16",
        bf16=training["precision"] == "bf16",
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        gradient_checkpointing=training["checkpointing"],
        gradient_checkpointing_kwargs={"use_reentrant": False} if training["checkpointing"] else None,
        logging_steps=1,  # Watch looks at every step, and prints every training.logging_steps
        logging_nan_inf_filter=False,
        save_strategy="no",  # Watch says when
        save_total_limit=2,  # the last one may be unfinished when a process is killed
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        seed=parameters["seed"],
        data_seed=parameters["seed"],
    )


def prepare(model: Any, pad_id: int, tell: bool = False) -> Collator:
    """Makes a bare base model spare its logits, and chooses how its examples become batches.

    Args:
        tell: say what was chosen; once a session is enough.
    """
    packed = can_pack(model)
    collate = Collator(
        pad_id, keep="logits_to_keep" in inspect.signature(type(model).forward).parameters, packed=packed
    )
    spared = spare_logits(model)
    if tell:
        emit("batches", packed=packed, logits_spared=spared)
    return collate


@cache
def _know_cpu_0() -> None:
    """transformers 5.0 loads the optimizer of several processes on a CPU to "cpu:0", which torch does not know."""
    torch.serialization.register_package(
        90, lambda storage: None, lambda storage, place: storage if place.startswith("cpu:") else None
    )
