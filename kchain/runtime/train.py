"""The training itself: a plain transformers.Trainer, watched step by step."""

from __future__ import annotations

import faulthandler
import inspect
import math
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from .collate import Collator
from .encode import Encoded
from .events import emit, peak_memory
from .failure import Stop
from .loss import spare_logits
from .trial import can_pack

# A run is slow when its mean step takes longer than this many times the plan, judged without the first steps.
SLOW = 2.0
WARM_UP_STEPS = 3
JUDGED_STEPS = 8
# A step that takes longer than this many planned steps (and ten minutes) hangs: the process is ended.
HANGING = 50
HANGING_SECONDS = 600.0


@dataclass(frozen=True)
class Outcome:
    """What came out of a training run. `reason` says why it was cut short, None when it was not."""

    steps: int
    epochs: float
    loss_first: float
    loss_last: float
    reason: str | None


class Watch(TrainerCallback):  # type: ignore[misc,unused-ignore]
    """Prints progress and ends a run that is out of time, crawls, hangs or diverges.

    Args:
        training: the phase's training parameters.
        deadline: time.monotonic() at which training must be over.
    """

    def __init__(self, training: dict[str, Any], deadline: float) -> None:
        self.training = training
        self.deadline = deadline
        self.losses: list[float] = []
        self.seconds: list[float] = []
        self.printed = 0
        self.reason: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Starts the clocks."""
        self.began = self.last = time.monotonic()
        self._expect_a_step()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called after every optimizer step (and once at the end, without a loss)."""
        logs = kwargs["logs"]
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise Stop(
                f"the loss is {logs['loss']} at step {state.global_step}",
                "lower training.learning_rate, add training.warmup, and look at the data of the last examples",
            )
        now = time.monotonic()
        self.losses.append(logs["loss"])
        self.seconds.append(now - self.last)
        self.last = now
        self._expect_a_step()
        self.reason = self._too_slow() or self._out_of_time(now)
        control.should_training_stop = control.should_training_stop or self.reason is not None
        step = state.global_step
        if step == 1 or step % self.training["logging_steps"] == 0 or step == state.max_steps or self.reason:
            self._print(state, logs["learning_rate"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stops waiting for steps."""
        faulthandler.cancel_dump_traceback_later()

    def _expect_a_step(self) -> None:
        # A thread of the interpreter itself: it works while everything else is stuck in a GPU call.
        seconds = max(HANGING_SECONDS, HANGING * self.training["step_seconds"])
        faulthandler.dump_traceback_later(seconds, exit=True, file=2)

    def _too_slow(self) -> str | None:
        judged = self.seconds[WARM_UP_STEPS:]
        planned = self.training["step_seconds"]
        if len(judged) >= JUDGED_STEPS and fmean(judged) > SLOW * planned:
            return f"a step takes {fmean(judged):.3g} s where {planned:g} s were planned"
        return None

    def _out_of_time(self, now: float) -> str | None:
        if now + fmean(self.seconds) <= self.deadline:
            return None
        return "the session's time is nearly over; the rest of it is for judging and saving"

    def _print(self, state: Any, learning_rate: float) -> None:
        window = self.losses[self.printed :]
        self.printed = len(self.losses)
        emit(
            "step",
            step=state.global_step,
            steps=state.max_steps,
            epoch=round(state.epoch, 4),
            loss=fmean(window),
            learning_rate=learning_rate,
            seconds=round(self.last - self.began, 3),
            memory_bytes=peak_memory(),
        )


def train(
    model: Any, examples: list[Encoded], collate: Collator, parameters: dict[str, Any], scratch: Path, deadline: float
) -> Outcome:
    """Trains the adapter of a PEFT model in place.

    Raises:
        Stop: the loss is no longer finite.
    """
    training = parameters["training"]
    watch = Watch(training, deadline)
    trainer = Trainer(
        model=model,
        args=arguments(parameters, scratch),
        train_dataset=examples,
        data_collator=collate,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train()
    finally:
        faulthandler.cancel_dump_traceback_later()
    # A run shorter than two windows is halved: first and last must not be the same steps.
    window = min(training["logging_steps"], max(1, len(watch.losses) // 2))
    return Outcome(
        steps=trainer.state.global_step,
        epochs=round(trainer.state.epoch or 0.0, 4),
        loss_first=fmean(watch.losses[:window]),
        loss_last=fmean(watch.losses[-window:]),
        reason=watch.reason if trainer.state.global_step < trainer.state.max_steps else None,
    )


def arguments(parameters: dict[str, Any], scratch: Path) -> TrainingArguments:
    """The Trainer's settings; only names that transformers 5.0 and 5.23 both have."""
    training = parameters["training"]
    on_gpu = parameters["accelerator"]["gpus"] > 0
    constant = training["scheduler"] == "constant" and training["warmup"] > 0
    return TrainingArguments(
        output_dir=str(scratch / "checkpoints"),
        num_train_epochs=training["epochs"],
        max_steps=training["max_steps"] or -1,
        per_device_train_batch_size=training["batch"],
        gradient_accumulation_steps=training["accumulation"],
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
        save_strategy="epoch",
        save_only_model=True,
        save_total_limit=1,
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        label_names=["labels"],
        seed=parameters["seed"],
        data_seed=parameters["seed"],
    )


def prepare(model: Any, pad_id: int) -> Collator:
    """Makes a bare base model spare its logits, and chooses how its examples become batches."""
    packed = can_pack(model)
    collate = Collator(
        pad_id, keep="logits_to_keep" in inspect.signature(type(model).forward).parameters, packed=packed
    )
    spared = spare_logits(model)
    emit("batches", packed=packed, logits_spared=spared)
    return collate
