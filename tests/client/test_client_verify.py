"""What is accepted as an adapter, and everything that is not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_adapters import BUNDLE, EXPECTED, LORA, tensor_bytes, weights, write_outputs

from kchain.errors import AdapterRefused
from kchain.orchestrator.judging.adapter import Expected, verify

ADOPTED = dataclasses.replace(EXPECTED, needs_result=False, bundle_hash=None, lineage=None)


def refused(folder: Path, expected: Expected = EXPECTED) -> AdapterRefused:
    with pytest.raises(AdapterRefused) as caught:
        verify(folder, expected)
    assert caught.value.hint, "every refusal says what to do"
    assert caught.value.exit_code == 1
    return caught.value


def test_a_good_adapter_is_accepted_with_its_hash_and_size(tmp_path: Path) -> None:
    adapter = verify(write_outputs(tmp_path), EXPECTED)
    data = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    assert adapter.sha256 == hashlib.sha256(data).hexdigest()
    assert (adapter.bytes, adapter.tensors, adapter.warnings) == (len(data), 8, ())
    assert adapter.path == tmp_path / "adapter"
    assert adapter.result is not None and adapter.result.bundle == BUNDLE


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8"])
def test_every_floating_type_is_read(tmp_path: Path, dtype: str) -> None:
    assert verify(write_outputs(tmp_path, weights(dtype=dtype)), EXPECTED).tensors == 8


def bf16(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: (array.astype("<f4").view("<u4") >> 16).astype("<u2") for name, array in arrays.items()}


def test_bf16_is_read_and_its_nan_and_infinity_are_found(tmp_path: Path) -> None:
    assert verify(write_outputs(tmp_path, bf16(weights())), EXPECTED).tensors == 8
    for value in (np.nan, np.inf, -np.inf):
        arrays = weights()
        next(iter(arrays.values()))[0, 0] = value
        assert "NaN or infinite" in refused(write_outputs(tmp_path, bf16(arrays))).message


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_value_that_is_not_finite_refuses_it(tmp_path: Path, dtype: str, value: float) -> None:
    arrays = weights(dtype=dtype)
    list(arrays.values())[-1][-1, -1] = value
    assert "the training diverged" in refused(write_outputs(tmp_path, arrays)).message


def test_an_adapter_that_learned_nothing_is_refused(tmp_path: Path) -> None:
    arrays = {name: array * (0 if "lora_B" in name else 1) for name, array in weights().items()}
    assert "nothing was learned" in refused(write_outputs(tmp_path, arrays)).message
    assert "nothing was learned" in refused(write_outputs(tmp_path, bf16(arrays))).message


def test_one_untouched_matrix_is_a_warning(tmp_path: Path) -> None:
    arrays = weights()
    name = next(name for name in arrays if "lora_B" in name)
    arrays[name] = arrays[name] * 0
    (warning,) = verify(write_outputs(tmp_path, arrays), EXPECTED).warnings
    assert "1 of 4 B matrices are zero" in warning


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"r": 8}, "r is 8, not 4"),
        ({"lora_alpha": 16}, "lora_alpha is 16"),
        ({"lora_dropout": 0.1}, "lora_dropout is 0.1"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"target_modules": ["q_proj"]}, "target_modules"),
        ({"target_modules": "all-linear"}, "all-linear"),
        ({"peft_type": "ADALORA"}, "ADALORA"),
        ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
        ({"use_dora": True}, "use_dora"),
        ({"use_rslora": True}, "use_rslora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 8}}, "rank_pattern"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"init_lora_weights": "pissa_niter_16"}, "pissa_niter_16"),
        ({"base_model_name_or_path": "someone/else"}, "someone/else"),
    ],
)
def test_another_lora_than_the_chains_is_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    assert word in refused(write_outputs(tmp_path, config_changes=change)).message


def test_a_wrong_rank_in_the_weights_is_found_though_the_config_lies(tmp_path: Path) -> None:
    assert "rank 4 was expected" in refused(write_outputs(tmp_path, weights(r=8))).message


@pytest.mark.parametrize(
    ("drop", "word"),
    [
        ("base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight", "lora_A alone"),
        ("base_model.model.model.layers.1.self_attn.q_proj", "layer 1 differs"),
        ("v_proj", "no adapter on v_proj"),
        ("layers", "holds no tensor"),
    ],
)
def test_missing_matrices_are_found(tmp_path: Path, drop: str, word: str) -> None:
    arrays = {name: array for name, array in weights().items() if drop not in name}
    assert word in refused(write_outputs(tmp_path, arrays)).message


def test_a_missing_layer_in_the_middle_is_found(tmp_path: Path) -> None:
    arrays = {name: array for name, array in weights(layers=4).items() if ".layers.2." not in name}
    assert "layers are missing: there are [0, 1, 3]" in refused(write_outputs(tmp_path, arrays)).message


def test_layers_at_a_fixed_distance_are_an_architecture_of_its_own(tmp_path: Path) -> None:
    arrays = {name: array for name, array in weights(layers=8).items() if any(f".{n}." in name for n in (3, 7))}
    assert verify(write_outputs(tmp_path, arrays), EXPECTED).tensors == 8


@pytest.mark.parametrize(
    "name", ["lm_head.weight", "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight", "x.lora_magnitude_vector"]
)
def test_tensors_that_do_not_belong_are_refused(tmp_path: Path, name: str) -> None:
    arrays = weights() | {name: np.ones((4, 16), "<f4")}
    assert name in refused(write_outputs(tmp_path, arrays)).message


@pytest.mark.parametrize("shape", [(4, 16, 1), (4,), (4, 0)])
def test_shapes_that_are_no_matrix_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    arrays = weights()
    arrays[next(iter(arrays))] = np.ones(shape, "<f4")
    assert "has shapes" in refused(write_outputs(tmp_path, arrays)).message


@pytest.mark.parametrize(
    "name", ["adapter_model.bin", "optimizer.pt", "nested/training_args.BIN", "state.pkl", "x.ckpt"]
)
def test_a_pickle_anywhere_in_the_adapter_is_refused_unread(tmp_path: Path, name: str) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.write_text, (tmp_path / "exploded", "x"))

    folder = write_outputs(tmp_path)
    path = folder / "adapter" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(Bomb()))
    assert "pickle" in refused(folder).message
    assert not (tmp_path / "exploded").exists()


def test_a_pickle_under_a_good_name_is_refused_unread(tmp_path: Path) -> None:
    assert "not a sound safetensors file" in refused(write_outputs(tmp_path, data=pickle.dumps({"a": 1}))).message


def test_a_file_cut_short_or_with_something_appended_is_refused(tmp_path: Path) -> None:
    data = tensor_bytes(weights())
    assert "cut short" in refused(write_outputs(tmp_path, data=data[:-10])).message
    assert "appended" in refused(write_outputs(tmp_path, data=data + b"x")).message


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_outputs(tmp_path)
    (folder / "adapter" / name).unlink()
    assert name in refused(folder).message


def test_a_missing_adapter_and_a_missing_result_are_told_apart(tmp_path: Path) -> None:
    assert "there is no adapter" in refused(tmp_path).message
    folder = write_outputs(tmp_path)
    (folder / "kchain-result.json").unlink()
    assert "kchain-result.json" in refused(folder).message


@pytest.mark.parametrize("content", ["", "[]", "{ not json", "\x00", "null"])
@pytest.mark.parametrize("name", ["adapter/adapter_config.json", "kchain-result.json"])
def test_a_damaged_json_file_is_refused(tmp_path: Path, name: str, content: str) -> None:
    folder = write_outputs(tmp_path)
    (folder / name).write_text(content)
    assert Path(name).name in refused(folder).message


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"pad_id": 151654}, "gibberish"),
        ({"pad_id": None}, "gibberish"),
        ({"pad_id": True}, "gibberish"),
        ({"bundle": "c" * 64}, "edited the kernel"),
        ({"format": 2}, "another kchain"),
        ({"base_model": "x/y/z/w/1"}, "again"),
        ({"lineage": []}, "other adapters"),
        ({"lineage": None}, "other adapters"),
        ({"lora": {"r": 8}}, "again"),
        ({"lora": None}, "again"),
        ({"adapter": None}, "logs"),
        ({"adapter": {"sha256": "0" * 64}}, "pull again"),
    ],
)
def test_a_result_file_that_tells_another_story_is_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    assert word in refused(write_outputs(tmp_path, result_changes=change)).hint


def test_a_recorded_hash_must_be_met(tmp_path: Path) -> None:
    folder = write_outputs(tmp_path)
    expected = dataclasses.replace(EXPECTED, sha256="0" * 64)
    assert "recorded was 0000" in refused(folder, expected).message
    expected = dataclasses.replace(EXPECTED, sha256=verify(folder, EXPECTED).sha256)
    assert verify(folder, expected).tensors == 8


def test_an_adopted_adapter_needs_no_result_and_may_name_its_base_otherwise(tmp_path: Path) -> None:
    folder = write_outputs(tmp_path, config_changes={"base_model_name_or_path": "Qwen/Qwen2.5-0.5B-Instruct"})
    (folder / "kchain-result.json").unlink()
    adapter = verify(folder, ADOPTED)
    assert adapter.result is None
    assert any("Qwen/Qwen2.5-0.5B-Instruct" in warning for warning in adapter.warnings)
    assert any("pad token" in warning for warning in adapter.warnings)
    flat = verify(folder / "adapter", dataclasses.replace(ADOPTED, folder=""))
    assert flat.sha256 == adapter.sha256


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"pad_token": "<|vision_pad|>", "added_tokens_decoder": {"151654": {"content": "<|vision_pad|>"}}},
        {"pad_token": {"content": "<|endoftext|>"}},
        {"pad_token": "<|im_end|>", "added_tokens_decoder": {"7": {"content": "<|im_end|>"}}},
    ],
)
def test_an_adopted_adapter_that_was_padded_otherwise_is_refused(tmp_path: Path, tokenizer: dict[str, Any]) -> None:
    folder = write_outputs(tmp_path)
    (folder / "adapter" / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    assert "pads with" in refused(folder, ADOPTED).message


def test_a_tokenizer_that_pads_as_the_chain_does_is_proof(tmp_path: Path) -> None:
    folder = write_outputs(tmp_path)
    (folder / "kchain-result.json").unlink()
    (folder / "adapter" / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|im_end|>"}))
    added = {"added_tokens": [{"id": 151643, "content": "<|endoftext|>"}, {"id": 151645, "content": "<|im_end|>"}]}
    (folder / "adapter" / "tokenizer.json").write_text(json.dumps(added))
    assert verify(folder, ADOPTED).warnings == ()


@pytest.mark.slow
def test_what_peft_itself_saves_is_accepted(tmp_path: Path) -> None:
    """The real writer: a tiny Qwen model with a trained LoRA, saved by peft."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    shape = transformers.Qwen2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = transformers.Qwen2ForCausalLM(shape)
    lora = peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.05, target_modules=list(LORA.targets), task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(model, lora)
    folder = tmp_path / "adapter"
    adapted.save_pretrained(folder, safe_serialization=True)
    assert "nothing was learned" in refused(tmp_path, ADOPTED).message
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.add_(0.1)
    adapted.save_pretrained(folder, safe_serialization=True)
    adapter = verify(tmp_path, ADOPTED)
    assert adapter.tensors == 8
