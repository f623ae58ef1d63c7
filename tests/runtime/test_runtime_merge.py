"""Merging: equal to an independent merge, bit for bit, and refused where it would be wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from runtime_tiny import build_model, build_tokenizer, make_root, mount, parameters, read_result, second_phase
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kchain.runtime import merge as merging
from kchain.runtime import session
from kchain.runtime.adapters import Adapter
from kchain.runtime.contract import WEIGHTS
from kchain.runtime.failure import Stop
from kchain.runtime.merge import merge

LORA = parameters()["lora"]


def make_adapter(base: Path, folder: Path, seed: int, size: float = 0.05) -> Adapter:
    """A LoRA adapter with random factors, as PEFT saves it."""
    from kchain.runtime.model import add_lora, load_base

    model = add_lora(load_base(base, "fp32", "none"), LORA, seed)
    torch.manual_seed(seed)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=size)
    model.save_pretrained(folder, save_embedding_layers=False)
    return Adapter(f"phase{seed}", "kernel", f"me/{seed}", folder, "", 0)


def independent_merge(base: Path, adapters: list[Adapter]) -> dict[str, torch.Tensor]:
    """PEFT's own merge, in fp32, one adapter after the other, rounded once."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    for adapter in adapters:
        model = PeftModel.from_pretrained(model, adapter.folder).merge_and_unload()
    state: dict[str, torch.Tensor] = model.half().state_dict()
    return state


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return found


@pytest.fixture(params=["fp16", "bf16", "fp32", "fp16 in shards", "fp32 in shards"])
def some_base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    dtype = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}[request.param.split()[0]]
    options = {"max_shard_size": "100KB"} if "shards" in request.param else {}
    folder = build_model(tmp_path / "base", dtype, **options)
    if options:
        assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


@pytest.mark.parametrize("block", [merging.SUMMED, 1024])
def test_a_merge_equals_an_independent_one_bit_for_bit(
    some_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    monkeypatch.setattr(merging, "SUMMED", block)  # a matrix of these models is one block, or several
    adapters = [make_adapter(some_base, tmp_path / f"a{seed}", seed) for seed in (1, 2, 3)]
    merged = weights_of(merge(some_base, adapters, LORA, tmp_path / "merged"))
    expected = independent_merge(some_base, adapters)
    assert set(merged) == set(weights_of(some_base))
    for name, tensor in merged.items():
        assert tensor.dtype == torch.float16, name
        assert torch.equal(tensor, expected[name]), name
    query = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(merged[query], weights_of(some_base)[query].half()), "the adapters change something"


def test_a_merged_folder_loads_as_an_ordinary_model(some_base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    folder = merge(some_base, [make_adapter(some_base, tmp_path / "a", 1)], LORA, tmp_path / "merged")
    model, told = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert model.dtype == torch.float16
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    assert model.lm_head.weight is model.model.embed_tokens.weight, "still tied"


def test_the_tokenizer_and_its_template_travel_with_the_merged_model(base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = merge(base, [make_adapter(base, tmp_path / "a", 1)], LORA, tmp_path / "merged")
    assert AutoTokenizer.from_pretrained(folder).chat_template == build_tokenizer().chat_template
    assert not (tmp_path / "merged.partial").exists()


def test_nothing_is_copied_when_there_is_nothing_to_merge(base: Path, tmp_path: Path) -> None:
    assert merge(base, [], LORA, tmp_path / "merged") == base
    assert not (tmp_path / "merged").exists()


def test_a_second_merge_replaces_the_first(base: Path, tmp_path: Path) -> None:
    one, two = (make_adapter(base, tmp_path / f"a{seed}", seed) for seed in (1, 2))
    merge(base, [one], LORA, tmp_path / "merged")
    merge(base, [two], LORA, tmp_path / "merged")
    query = "model.layers.1.self_attn.q_proj.weight"
    assert torch.equal(weights_of(tmp_path / "merged")[query], independent_merge(base, [two])[query])


def test_a_sum_that_overflows_fp16_is_refused_and_leaves_no_merged_model(tmp_path: Path) -> None:
    base = build_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "a", 1, size=1e7)
    with pytest.raises(Stop, match="values beyond fp16"):
        merge(base, [adapter], LORA, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_base_weight_that_fp16_cannot_hold_is_refused(tmp_path: Path) -> None:
    base = build_model(tmp_path / "base", "bfloat16")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][3] = 1e30
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(Stop, match=r"model\.norm\.weight has values beyond fp16"):
        merge(base, [make_adapter(build_model(tmp_path / "other"), tmp_path / "a", 1)], LORA, tmp_path / "merged")


def change(adapter: Adapter, **tensors: torch.Tensor | None) -> None:
    """Rewrites an adapter's file: first tensor of a kind replaced, or a tensor added."""
    weights = load_file(adapter.folder / WEIGHTS)
    for name, value in tensors.items():
        key = next((key for key in weights if name in key), name)
        if value is not None:
            weights[key] = value
    save_file(weights, adapter.folder / WEIGHTS, {"format": "pt"})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_adapter_that_is_not_finite_is_refused(base: Path, tmp_path: Path, bad: float) -> None:
    adapter = make_adapter(base, tmp_path / "a", 1)
    change(adapter, lora_A=torch.full((LORA["r"], 64), bad))
    with pytest.raises(Stop, match="phase1: .* holds NaN or infinity"):
        merge(base, [adapter], LORA, tmp_path / "merged")


def test_an_adapter_with_more_than_lora_factors_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "a", 1)
    change(adapter, lora_magnitude_vector=torch.ones(2, 64))
    with pytest.raises(Stop, match="lora_magnitude_vector is neither a LoRA factor nor token rows"):
        merge(base, [adapter], LORA, tmp_path / "merged")


def test_an_adapter_of_another_models_layers_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "a", 1)
    weights = {
        name.replace("layers.1", "layers.9"): value for name, value in load_file(adapter.folder / WEIGHTS).items()
    }
    save_file(weights, adapter.folder / WEIGHTS, {"format": "pt"})
    with pytest.raises(Stop, match=r"no weight model\.layers\.9"):
        merge(base, [adapter], LORA, tmp_path / "merged")


def test_an_adapter_of_another_width_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = make_adapter(base, tmp_path / "a", 1)
    change(adapter, lora_A=torch.ones(LORA["r"], 32))
    with pytest.raises(Stop, match="does not have the weight's shape"):
        merge(base, [adapter], LORA, tmp_path / "merged")


def test_an_adapter_of_another_base_ends_the_session_in_its_first_minute(
    two_phases: tuple[Path, Path], tmp_path: Path
) -> None:
    other = build_model(tmp_path / "other")
    weights = {name: value for name, value in weights_of(other).items() if "layers.1." not in name}
    save_file(weights, other / "model.safetensors", {"format": "pt"})
    root = make_root(tmp_path / "kaggle", other)
    mount(root, "notebooks/me/one", two_phases[0])
    os.environ["KCHAIN_KAGGLE_ROOT"] = str(root)
    with pytest.raises(Stop, match=r"phase1: the base model has no weight model\.layers\.1"):
        session.start(second_phase(), "b" * 64).preflight()
    assert read_result(root)["reason"].startswith("preflight: phase1")


def test_a_base_quantized_on_disk_is_refused(tmp_path: Path) -> None:
    base = build_model(tmp_path / "base")
    adapter = make_adapter(base, tmp_path / "a", 1)
    weights = load_file(base / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(8, 8, dtype=torch.uint8)
    save_file(weights, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(Stop, match="is U8: quantized"):
        merge(base, [adapter], LORA, tmp_path / "merged")


def test_the_index_of_a_sharded_model_tells_the_size_of_what_was_written(tmp_path: Path) -> None:
    base = build_model(tmp_path / "base", "float32", max_shard_size="100KB")
    folder = merge(base, [make_adapter(base, tmp_path / "a", 1)], LORA, tmp_path / "merged")
    index: dict[str, Any] = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(2 * tensor.numel() for tensor in weights_of(folder).values())
    for name, file in index["weight_map"].items():
        with safe_open(folder / file, framework="pt") as tensors:
            assert name in tensors.keys()  # noqa: SIM118 - safe_open is no dictionary
