"""Training as a T4 does it, as far as a CPU can show: an fp16 base, fp32 LoRA weights, autocast, a gradient scaler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from runtime_tiny import EOS_ID, encode_one, parameters
from runtime_workers import PAD, make_folder, make_job, random_examples, small_base

from kchain.runtime import model as models
from kchain.runtime import tokenizer, train
from kchain.runtime.batches import Collator
from kchain.runtime.chat import Chat
from kchain.runtime.failure import Stop

LORA = parameters()["lora"]
TALK = {
    "messages": [
        {"role": "user", "content": "list all files"},
        {"role": "assistant", "content": "ls -la"},
        {"role": "user", "content": "count the lines"},
        {"role": "assistant", "content": "wc -l"},
    ]
}


@pytest.fixture
def batch(tokenizer: Any) -> dict[str, torch.Tensor]:
    """Two examples of different lengths, the head asked only for what is learned."""
    return Collator(EOS_ID, keep=True)([encode_one(TALK, Chat(tokenizer)), encode_one({"text": "wc"}, Chat(tokenizer))])


def half(base: Path) -> Any:
    """The base in fp16 with an adapter, checkpointing as the Trainer switches it on."""
    model = models.add_lora(models.load_base(base, "fp16", "none"), LORA, seed=1)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model.train()


def test_a_scaler_takes_a_step_on_the_adapter_and_leaves_the_fp16_base_alone(
    base: Path, batch: dict[str, torch.Tensor]
) -> None:
    model = half(base)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    trainable = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer, scaler = torch.optim.AdamW(trainable, lr=1e-2), torch.amp.GradScaler("cpu", init_scale=2.0**10)
    losses = []
    for _ in range(3):
        with torch.autocast("cpu", dtype=torch.float16):
            loss = model(**batch).loss
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)  # raises "Attempting to unscale FP16 gradients" for a half-precision weight
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    for name, weight in model.named_parameters():
        assert weight.dtype == (torch.float32 if "lora" in name else torch.float16), name
        if "lora" not in name:
            assert torch.equal(weight, before[name]), name


@pytest.mark.parametrize("overflowing", [pytest.param(5, marks=pytest.mark.long), 99])
def test_steps_that_change_nothing_are_counted_and_too_many_in_a_row_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overflowing: int
) -> None:
    base = small_base(tmp_path / "base")
    job, examples = make_job(base, training__max_steps=25, training__epochs=9), random_examples(40)
    folder = make_folder(tmp_path / "job", examples)
    bare = models.load_base(base, "fp32", "none")
    tokenizer.force_on_model(bare, PAD)
    collate = train.prepare(bare, PAD["id"])
    adapted = models.adapt(bare, job.parameters, None, [])
    first = next(weight for weight in adapted.parameters() if weight.requires_grad)
    # One pass of the trial, then two batches a step.
    passes = iter(range(10**6))
    first.register_hook(lambda grad: grad * (float("inf") if next(passes) < 1 + 2 * overflowing else 1.0))
    stock = train.Steady.__init__

    def with_scaler(self: Any, *args: Any, **options: Any) -> None:
        stock(self, *args, **options)
        self.accelerator.scaler = torch.amp.GradScaler("cpu")

    monkeypatch.setattr(train.Steady, "__init__", with_scaler)
    if overflowing == 5:
        assert train.train(adapted, examples, collate, job, folder, 0).skipped == 5
    else:
        with pytest.raises(Stop, match="20 steps up to step 20 changed nothing"):
            train.train(adapted, examples, collate, job, folder, 0)


def test_checkpointing_gives_every_lora_weight_a_gradient(base: Path, batch: dict[str, torch.Tensor]) -> None:
    model = half(base)
    with torch.autocast("cpu", dtype=torch.float16):
        model(**batch).loss.backward()
    missing = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is None]
    assert not missing


def test_the_loss_in_half_precision_is_that_of_fp32_within_rounding(base: Path, batch: dict[str, torch.Tensor]) -> None:
    with torch.autocast("cpu", dtype=torch.float16):
        found = half(base).eval()(**batch).loss
    expected = models.add_lora(models.load_base(base, "fp32", "none"), LORA, seed=1).eval()(**batch).loss
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=5e-3)


def test_a_trainable_weight_in_half_precision_is_refused_before_hours_are_spent(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "get_peft_model", lambda model, config: get_peft_model(model, config).half())
    with pytest.raises(Stop, match="is trainable and torch.float16, not float32"):
        models.add_lora(models.load_base(base, "fp16", "none"), LORA, seed=1)
