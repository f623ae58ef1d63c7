"""The loss without the logits is the stock loss, with the stock gradients, whatever the head and whoever wraps it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from runtime_tiny import Events, parameters, run_session
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainingArguments,
)

from kchain.runtime import evaluate, loss
from kchain.runtime.batches import Collator
from kchain.runtime.encode import IGNORED, Encoded
from kchain.runtime.failure import Stop
from kchain.runtime.loss import spare_logits

WORDS = 211
# name -> (config class, model class, options): tied, untied, with a bias, scaled, capped.
HEADS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "tied": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "untied": (LlamaConfig, LlamaForCausalLM, {"tie_word_embeddings": False}),
    "bias": (PhiConfig, PhiForCausalLM, {"pad_token_id": 0}),
    "scaled": (CohereConfig, CohereForCausalLM, {"logit_scale": 0.0625, "eos_token_id": 2}),
    "scaled otherwise": (GraniteConfig, GraniteForCausalLM, {"logits_scaling": 3.3}),
    "capped": (Gemma2Config, Gemma2ForCausalLM, {"head_dim": 16, "final_logit_softcapping": 2.0}),
}
ADAPTER = ["q_proj", "v_proj"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of seven rows: every batch of these tests has several, and one that is not full."""
    monkeypatch.setattr(loss, "CHUNK", 7 * WORDS + 5)


def build(head: str, **options: Any) -> Any:
    config, model, own = HEADS[head]
    torch.manual_seed(3)
    sizes = {"vocab_size": WORDS, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    built = model(config(**sizes, num_attention_heads=4, num_key_value_heads=2, **{**own, **options})).eval()
    for weight in built.parameters():  # biases too, and logits far enough apart to be told from each other
        weight.data += 0.1 * torch.randn_like(weight)
    return built


def examples(*lengths: int, learned: float = 0.6) -> list[Encoded]:
    chance = np.random.default_rng(5)
    made = []
    for length in lengths:
        ids = chance.integers(3, WORDS, length).astype(np.int32)
        labels = ids.copy()
        labels[: length - max(1, int(length * learned))] = IGNORED
        made.append(Encoded(ids, labels))
    return made


def padded(*lengths: int) -> dict[str, torch.Tensor]:
    return Collator(2, keep=False)(examples(*lengths))


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def loss_and_gradients(model: Any, batch: dict[str, torch.Tensor], **extra: Any) -> tuple[float, Any]:
    model.zero_grad()
    answer = model(**batch, **extra)
    answer.loss.backward()
    return answer.loss.item(), gradients(model)


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], share: float = 1e-5) -> None:
    assert found.keys() == expected.keys() != set()
    for name, gradient in expected.items():
        assert (found[name] - gradient).abs().max() <= share * gradient.abs().max() + 1e-9, name


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("trained_head", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_loss_and_every_gradient_are_the_stock_ones(head: str, trained_head: bool, keep: bool) -> None:
    model = build(head)
    model.get_output_embeddings().requires_grad_(trained_head)
    expected = loss_and_gradients(model, padded(13, 5, 31))
    assert spare_logits(model) is (head not in ("capped", "scaled otherwise"))
    found = loss_and_gradients(model, Collator(2, keep)(examples(13, 5, 31)))
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    same(found[1], expected[1])


def test_a_batch_whose_logits_never_exist_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build("tied")
    model.get_output_embeddings().requires_grad_(False)
    sizes: list[int] = []
    chunk = loss._chunk
    monkeypatch.setattr(loss, "_chunk", lambda rows, *rest: sizes.append(len(rows)) or chunk(rows, *rest))
    spare_logits(model)
    answer = model(**padded(13, 5, 31))
    assert "logits" not in answer
    assert sizes == [7, 7, 7, 7]  # 28 of 49 tokens are learned


@pytest.mark.parametrize("options", [{}, {"target_modules": [*ADAPTER, "lm_head"]}], ids=["body", "head too"])
def test_an_adapter_gets_the_gradients_it_would_get_from_the_full_logits(options: dict[str, Any]) -> None:
    def adapted() -> Any:
        torch.manual_seed(11)
        model = get_peft_model(bare, LoraConfig(**{"r": 4, "target_modules": ADAPTER, **options})).eval()
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data += 0.05 * torch.randn_like(weight)
        return model

    bare = build("untied")
    expected = loss_and_gradients(adapted(), padded(13, 5, 31))
    bare = build("untied")
    assert spare_logits(bare)
    found = loss_and_gradients(adapted(), padded(13, 5, 31))
    assert found[0] == pytest.approx(expected[0], rel=1e-6)
    same(found[1], expected[1])
    assert any("lm_head" in name for name in found[1]) == bool(options)


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_trained_token_rows_get_the_gradient_of_all_their_uses_and_no_chunk_twice(
    head: str, half: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["embed_tokens"] if head == "tied" else ["embed_tokens", "lm_head"]
    config = LoraConfig(r=4, target_modules=ADAPTER, trainable_token_indices={name: [17, 40] for name in names})
    batch = padded(13, 5, 31)
    batch["input_ids"][0, 3] = batch["input_ids"][0, 8] = batch["labels"][0, 8] = batch["labels"][2, 30] = 17
    found = []
    for spared in (False, True):
        bare = build(head).half() if half else build(head)
        assert not spared or spare_logits(bare)
        if spared:
            monkeypatch.setattr(loss, "checkpoint", None)
        torch.manual_seed(11)
        adapted = get_peft_model(bare, config).eval()
        for name, weight in adapted.named_parameters():  # rows that are not those of the base any more
            if "trainable_tokens" in name:
                weight.data += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(4))
        with torch.autocast("cpu", dtype=torch.float16, enabled=half):
            answer = adapted(**batch).loss
        (answer * 256).backward()
        found.append((answer.item(), gradients(adapted)))
    assert found[1][0] == pytest.approx(found[0][0], rel=2e-3 if half else 1e-6)
    same(found[1][1], found[0][1], 2e-2 if half else 1e-5)
    assert sum("trainable_tokens" in name for name in found[1][1]) == len(names)


def test_gradient_checkpointing_changes_nothing() -> None:
    model = build("tied").train()
    model.get_output_embeddings().requires_grad_(False)
    spare_logits(model)
    model.train()
    expected = loss_and_gradients(model, padded(13, 5, 31))
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    found = loss_and_gradients(model, padded(13, 5, 31))
    assert found[0] == expected[0]
    same(found[1], expected[1])


def test_the_trainers_count_of_tokens_divides_the_sum() -> None:
    model = build("tied")
    spare_logits(model)
    mean, whole = model(**padded(13, 5, 31)).loss, model(**padded(13, 5, 31), num_items_in_batch=torch.tensor(100)).loss
    learned = int((padded(13, 5, 31)["labels"] != IGNORED).sum())
    assert whole.item() * 100 == pytest.approx(mean.item() * learned, rel=1e-6)


def test_half_precision_gives_gradients_as_good_as_the_stock_ones() -> None:
    """Against fp32, the stock loss under autocast (with its scaler) is no better than ours."""
    batch, found = padded(13, 5, 31), {}
    for name in ("fp32", "stock", "spared"):
        model = build("tied")
        model.get_output_embeddings().requires_grad_(False)
        if name != "fp32":
            model.get_output_embeddings().half()  # as kchain loads a base; tied, so the embedding too
            model.half()
        if name == "spared":
            assert spare_logits(model)
        adapted = get_peft_model(model, LoraConfig(r=4, target_modules=ADAPTER)).eval()
        for own in adapted.parameters():
            if own.requires_grad:
                own.data.copy_(0.05 * torch.randn(own.shape, generator=torch.Generator().manual_seed(own.numel())))
        with torch.autocast("cpu", dtype=torch.float16, enabled=name != "fp32"):
            answer = adapted(**batch).loss
        (answer * 1024).backward()
        assert answer.dtype == torch.float32
        found[name] = answer.item(), torch.cat([g.flatten() for g in gradients(adapted).values()]) / 1024
    exact = found["fp32"][1]
    error = {name: ((found[name][1] - exact).norm() / exact.norm()).item() for name in ("stock", "spared")}
    assert found["spared"][0] == pytest.approx(found["fp32"][0], rel=2e-3)
    assert error["spared"] < 1.2 * error["stock"] < 0.05


def test_a_flat_distribution_over_a_large_vocabulary_survives_half_precision() -> None:
    """Each of 150,000 probabilities is a subnormal fp16 number; their weighted sum must not be lost."""
    torch.manual_seed(0)
    weight = torch.randn(150_000, 8).half() + 0.5
    rows, targets = (torch.randn(4, 8) * 1e-3).half(), torch.tensor([1, 2, 3, 4])
    _, found, _ = loss._chunk(rows, targets, weight, None)
    logits = rows.double() @ weight.double().T
    expected = logits.softmax(-1) @ weight.double() - weight[targets].double()
    assert (found - expected).abs().max() < 2e-3


def run_trainer(model: Any, collate: Collator, folder: Path, **options: Any) -> tuple[list[float], Any]:
    arguments = TrainingArguments(
        output_dir=str(folder), use_cpu=True, report_to="none", disable_tqdm=True, logging_steps=1, save_strategy="no",
        learning_rate=1e-2, remove_unused_columns=False, label_names=["labels"], seed=1, **options,
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=arguments, data_collator=collate, train_dataset=examples(*range(4, 36, 2), learned=0.4)
    )
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line], model


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("family", ["tied", "capped"])
def test_the_trainers_losses_are_the_stock_ones_over_an_accumulation_of_unequal_batches(
    family: str, packed: bool, tmp_path: Path
) -> None:
    steps = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "num_train_epochs": 3}

    def adapted(bare: Any) -> Any:
        torch.manual_seed(2)
        return get_peft_model(bare, LoraConfig(r=4, target_modules=ADAPTER))

    stock, _ = run_trainer(adapted(build(family)), Collator(2, keep=False), tmp_path, **steps)
    model = build(family)
    spare_logits(model)
    found, _ = run_trainer(adapted(model), Collator(2, keep=True, packed=packed), tmp_path, **steps)
    assert len(found) == 6
    assert found == pytest.approx(stock, abs=1e-5)


# One of two processes with four batches each; the first prints the losses.
PARALLEL = """
import json, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[1])
import test_runtime_loss
losses = test_runtime_loss.losses_of_a_run(Path(sys.argv[2]), 4, ddp_backend="gloo", gradient_checkpointing=True)
if test_runtime_loss.torch.distributed.get_rank() == 0:
    print("losses", json.dumps(losses))
"""


def losses_of_a_run(folder: Path, accumulation: int, **options: Any) -> list[float]:
    model = build("tied")
    spare_logits(model)
    torch.manual_seed(2)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=ADAPTER))
    steps = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulation, "num_train_epochs": 2}
    return run_trainer(model, Collator(2, keep=True, packed=True), folder, **steps, **options)[0]


@pytest.mark.long
def test_two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    paths = json.dumps([str(Path(__file__).parents[2]), str(Path(__file__).parent)])
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launcher, str(script), paths, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("losses ")]
    expected = losses_of_a_run(tmp_path, 8)
    assert len(expected) == 4
    assert json.loads(line.removeprefix("losses ")) == pytest.approx(expected, abs=1e-5)


def test_loss_and_accuracy_of_the_validation_split_are_those_of_the_full_logits() -> None:
    model, split = build("tied"), examples(9, 3, 20, 12, 6)
    total = right = count = 0.0
    for example in split:
        logits = model(torch.from_numpy(example.ids).long()[None]).logits[0, :-1]
        targets = torch.from_numpy(example.labels).long()[1:]
        learned = targets != IGNORED
        total += torch.nn.functional.cross_entropy(logits[learned], targets[learned], reduction="sum").item()
        right += (logits.argmax(-1) == targets)[learned].sum().item()
        count += learned.sum().item()
    spare_logits(model)
    for collate in (Collator(2, keep=True, packed=True), Collator(2, keep=True), Collator(2, keep=False)):
        found = evaluate.evaluate(model, split, collate, 2)
        assert (found.loss, found.accuracy) == pytest.approx((total / count, right / count), rel=1e-5)
        assert found.examples == len(split)


def test_a_validation_batch_that_does_not_fit_is_judged_in_halves() -> None:
    model, split = build("tied"), examples(9, 3, 20, 12, 6)
    spare_logits(model)
    collate, stock = Collator(2, keep=True), model.forward
    expected = evaluate.evaluate(model, split, collate, 2)
    sizes: list[int] = []

    def small_memory(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.3 GiB")
        return stock(**inputs)

    model.forward = small_memory
    found = evaluate.evaluate(model, split, collate, 4)
    assert (found.loss, found.accuracy) == pytest.approx((expected.loss, expected.accuracy), rel=1e-5)
    assert sizes.count(1) == len(split) and max(sizes) == 4


def test_without_labels_a_model_answers_with_its_logits_as_before() -> None:
    model, ids = build("tied"), torch.arange(9)[None]
    expected = model(ids).logits
    spare_logits(model)
    assert torch.equal(model(ids).logits, expected)
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape == (1, 12)


def test_a_mask_beside_packed_examples_is_refused_before_they_see_each_other() -> None:
    model = build("tied")
    spare_logits(model)
    batch = Collator(2, keep=True, packed=True)(examples(5, 7))
    with pytest.raises(Stop, match="attention mask"):
        model(**batch, attention_mask=torch.ones_like(batch["input_ids"]))


def test_the_log_tells_that_examples_are_packed_and_logits_spared(kaggle: Path, events: Events) -> None:
    run_session(parameters())
    told = [event for event in events() if event["event"] == "batches"]
    assert [(each["packed"], each["logits_spared"]) for each in told] == [(True, True)], "once a session"
