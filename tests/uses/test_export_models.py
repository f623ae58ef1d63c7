"""A finished chain exported as a model and as one adapter: others load it, and it computes what the phases computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from command import kchain
from export_tools import PAD, base_of
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

IDS = torch.tensor([[486, 78, 220, 16, 17, 151645, 151644, 9, 33]])


@pytest.fixture(scope="module")
def exports(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where each export lies."""
    folder = tmp_path_factory.mktemp("exports")
    for form in ("safetensors", "adapter"):
        done = kchain(finished, "export", "--format", form, "--out", str(folder / form))
        assert done.returncode == 0, done.stderr
    return {form: folder / form for form in ("safetensors", "adapter")}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


@pytest.fixture(scope="module")
def chained(finished: Path) -> torch.Tensor:
    """What PEFT makes of the base and the two adapters, merged one after the other in fp32."""
    model = AutoModelForCausalLM.from_pretrained(base_of(finished), dtype=torch.float32)
    for phase in ("phase1", "phase2"):
        model = PeftModel.from_pretrained(model, finished / "runs/local" / phase / "v1/adapter").merge_and_unload()
    return logits(model)


def test_the_single_adapter_on_the_original_base_is_the_whole_chain(
    finished: Path, exports: dict[str, Path], chained: torch.Tensor
) -> None:
    base = AutoModelForCausalLM.from_pretrained(base_of(finished), dtype=torch.float32)
    plain = logits(base)
    found = logits(PeftModel.from_pretrained(base, exports["adapter"]))
    assert torch.allclose(found, chained, rtol=1e-4, atol=1e-4)
    assert (plain - chained).abs().max() > 1, "the adapters change something"


def test_its_factors_are_those_of_the_phases_side_by_side(finished: Path, exports: dict[str, Path]) -> None:
    stacked = load_file(exports["adapter"] / "adapter_model.safetensors")
    parts = [
        load_file(finished / f"runs/local/{name}/v1/adapter/adapter_model.safetensors") for name in ("phase1", "phase2")
    ]
    name = "base_model.model.model.layers.1.self_attn.v_proj.lora_{}.weight"
    first, second = (part[name.format("B")] @ part[name.format("A")] for part in parts)
    whole = stacked[name.format("B")].double() @ stacked[name.format("A")].double()
    assert torch.allclose(whole, 2.0 * (first.double() + second.double()), rtol=0, atol=1e-6)
    config = json.loads((exports["adapter"] / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (32, 32)


def test_the_merged_model_is_the_chain_rounded_once_to_fp16(exports: dict[str, Path], chained: torch.Tensor) -> None:
    model = AutoModelForCausalLM.from_pretrained(exports["safetensors"])
    assert model.dtype == torch.float16
    assert torch.allclose(logits(model.float()), chained, atol=0.05)


def test_the_exported_model_knows_where_an_answer_ends(exports: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(exports["safetensors"])
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (PAD["id"], PAD["id"])
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False).startswith("<|im_start|>")
    model = AutoModelForCausalLM.from_pretrained(exports["safetensors"])
    assert model.config.pad_token_id == model.generation_config.pad_token_id == PAD["id"]
    assert model.generation_config.eos_token_id == [PAD["id"], 151643], "the base's second way to end stays"


def test_the_card_tells_lineage_data_metrics_and_that_licences_are_unknown(
    finished: Path, exports: dict[str, Path]
) -> None:
    for form, loader in (("safetensors", "AutoModelForCausalLM"), ("adapter", "PeftModel.from_pretrained(base")):
        card = (exports[form] / "README.md").read_text()
        manifest = json.loads((exports[form] / "kchain-export.json").read_text())
        assert [entry["phase"] for entry in manifest["lineage"]] == ["phase1", "phase2"]
        for entry in manifest["lineage"]:
            assert f"| {entry['phase']} | kernel `demo/" in card and entry["sha256"] in card
        assert loader in card
        assert "| phase1 | tiny-code | Kaggle data set `kchain/tiny-code` | 77 | unknown |" in card
        assert "| phase2 | 40 | 9.000 -> 1.250 | 50.0% | 1.500 |" in card
        assert "licence is unknown to kchain" in card


def test_a_licence_beside_the_base_model_goes_along(finished: Path, copied: Any, tmp_path: Path) -> None:
    project = copied()
    (base_of(project) / "LICENSE").write_text("Apache 2.0")
    done = kchain(project, "export", "--format", "adapter", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "LICENSE").read_text() == "Apache 2.0"
    assert "came with LICENSE" in (tmp_path / "out" / "README.md").read_text()


def test_an_earlier_phase_can_be_exported_and_programs_can_read_what_was_made(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "one"
    done = kchain(finished, "export", "phase1", "--format", "adapter", "--out", str(out), "--json")
    told = json.loads(done.stdout)
    assert [entry["phase"] for entry in told["lineage"]] == ["phase1"]
    assert told["path"] == str(out)
    for name, file in told["files"].items():
        assert (out / name).stat().st_size == file["bytes"]
