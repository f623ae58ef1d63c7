"""The tiny base model is a genuine Qwen2 in shape, the same on every machine, and a LoRA really learns on it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from kchain.demo.model import HIDDEN, ROWS, write_model, write_safetensors
from kchain.demo.tokenizer import EOS_ID, FIRST_SPECIAL, SAMPLES, SPECIALS

# What the weights came to when the tiny chain's gates were measured on them.
WEIGHTS = "1bca8a688f9a"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    return folder


@pytest.fixture
def model(folder: Path) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def test_it_loads_as_qwen2_with_a_tied_head_and_genuine_ids(model: Any) -> None:
    assert type(model).__name__ == "Qwen2ForCausalLM"
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert model.config.eos_token_id == EOS_ID
    assert model.config.vocab_size == ROWS == 151936


def test_no_weight_is_missing_left_over_or_of_the_wrong_shape(folder: Path) -> None:
    _, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_it_is_stored_in_bf16_as_qwen_is(folder: Path) -> None:
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"BF16"}  # noqa: SIM118


def test_the_same_weights_come_out_in_another_process_which_imports_no_torch(folder: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from kchain.demo.model import write_model; "
        f"write_model(Path({str(tmp_path)!r})); assert not {{'torch', 'transformers'}} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    for file in folder.iterdir():
        assert (tmp_path / file.name).read_bytes() == file.read_bytes(), file.name


def test_the_weights_are_those_the_gates_were_measured_on(folder: Path) -> None:
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest.startswith(WEIGHTS), "measure the tiny chain again and set its gates, then change WEIGHTS"


def test_rows_that_no_text_uses_are_zero_and_all_others_are_not(model: Any, folder: Path) -> None:
    rows = model.model.embed_tokens.weight.detach().norm(dim=1)
    vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    used = sum(not token.startswith("<|unused_") for token in vocabulary) - len(SPECIALS)
    assert rows[:used].min() > 1 and rows[EOS_ID] > 1
    assert rows[used:FIRST_SPECIAL].max() == 0


def test_the_untrained_model_is_about_as_good_as_guessing_among_all_rows(model: Any, folder: Path) -> None:
    ids = AutoTokenizer.from_pretrained(folder)("Write a Python function.", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        assert 4 < model(ids, labels=ids).loss < 40


@pytest.mark.parametrize("number", [0.0, 1.0, -2.5, 3.14159, 1e-20, 65504.0])
def test_bf16_is_rounded_to_the_nearest(tmp_path: Path, number: float) -> None:
    write_safetensors(tmp_path / "x.safetensors", {"x": np.full((2, 3), number, np.float32)})
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        read = file.get_tensor("x")
    assert torch.equal(read, torch.full((2, 3), number).to(torch.bfloat16))


def answers(tokenizer: Any) -> Callable[[dict[str, str]], tuple[list[int], int]]:
    def encode(row: dict[str, str]) -> tuple[list[int], int]:
        prompt = tokenizer.encode(f"<|im_start|>user\n{row['instruction']}<|im_end|>\n<|im_start|>assistant\n")
        return prompt + tokenizer.encode(row["output"] + "<|im_end|>"), len(prompt)

    return encode


@pytest.mark.long
def test_a_lora_on_attention_alone_learns_the_code_samples(model: Any, folder: Path) -> None:
    encode = answers(AutoTokenizer.from_pretrained(folder))
    examples = [encode(json.loads(line)) for line in SAMPLES[0].text().splitlines()[:120]]
    targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM"))
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    assert all(weight.shape[0] == 16 or weight.shape[1] == 16 for weight in trained)
    optimizer = torch.optim.AdamW(trained, lr=7e-3)
    losses = []
    for _ in range(2):
        for ids, prompt in examples:
            row = torch.tensor([ids])
            kept = torch.arange(prompt - 1, len(ids) - 1)
            logits = model(row, logits_to_keep=kept).logits[0]
            loss = torch.nn.functional.cross_entropy(logits, row[0, prompt:])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert fmean(losses[-20:]) < 0.3 * fmean(losses[:5]), (fmean(losses[:5]), fmean(losses[-20:]))


def test_its_width_fits_the_adapter_size_that_is_checked(model: Any) -> None:
    assert model.config.hidden_size == HIDDEN
    assert model.config.num_key_value_heads < model.config.num_attention_heads, "grouped keys, as in Qwen2.5"
