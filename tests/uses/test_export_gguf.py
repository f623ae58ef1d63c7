"""GGUF files as llama.cpp will read them: every tensor, every key, every token; and what is refused.

That llama.cpp computes with them what transformers computes is measured by benchmarks/export_gguf.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import kchain
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file
from tiny_models import EOS_ID, KINDS, LLAMA3_ROPE, ROWS, build
from transformers import AutoTokenizer, LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from kchain.errors import InputError
from kchain.uses.gguf import llama3_factors, read_shape, read_words, write_gguf

Model = tuple[str, Path, Path]
# The layer's part of a name -> llama.cpp's name of it.
PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


@pytest.fixture(scope="module", params=list(KINDS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model of each kind, and its F16 file."""
    folder = build(tmp_path_factory.mktemp("model"), request.param)
    file = folder / "f16.gguf"
    write_gguf(folder, file, "f16", {"general.name": "tiny"}, EOS_ID)
    return request.param, folder, file


def name_in_gguf(name: str) -> str:
    module, _, kind = name.rpartition(".")
    if module in OUTSIDE:
        return f"{OUTSIDE[module]}.{kind}"
    _, _, layer, part = module.split(".", 3)
    return f"blk.{layer}.{PARTS[part]}.{kind}"


def pairs(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """Llama's order, spelled out: row 2 i of a head is row i of transformers, row 2 i + 1 is row i + half."""
    size = len(weight) // heads
    order = [head * size + i + part * size // 2 for head in range(heads) for i in range(size // 2) for part in (0, 1)]
    return weight[order]


def values_due(kind: str, folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    due = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        value = tensor.float().numpy()
        if kind.startswith(("llama", "mistral")) and ("q_proj" in name or "k_proj" in name):
            value = pairs(value, 6 if "q_proj" in name else 2)
        due[name_in_gguf(name)] = value
    return due


def test_every_tensor_is_there_with_its_own_values(made: Model) -> None:
    kind, folder, file = made
    found = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    due = values_due(kind, folder)
    assert set(found) - {"rope_freqs.weight"} == set(due)
    assert ("output.weight" in found) == ("untied" in kind)
    for name, value in due.items():
        wanted = GGMLQuantizationType.F16 if value.ndim == 2 else GGMLQuantizationType.F32
        assert found[name].tensor_type == wanted, name
        assert found[name].shape.tolist() == list(reversed(value.shape)), name
        assert np.array_equal(dequantize(found[name].data, wanted).reshape(value.shape), value), name


def test_eight_bits_are_at_most_half_a_step_from_the_value(made: Model, tmp_path: Path) -> None:
    kind, folder, _ = made
    write_gguf(folder, tmp_path / "q8.gguf", "q8_0", {"general.name": "tiny"}, EOS_ID)
    due = values_due(kind, folder)
    for tensor in GGUFReader(tmp_path / "q8.gguf").tensors:
        if tensor.name not in due or due[tensor.name].ndim == 1:
            continue
        assert tensor.tensor_type == GGMLQuantizationType.Q8_0, tensor.name
        value = due[tensor.name].reshape(-1, 32)
        steps = np.abs(value).max(axis=1, keepdims=True) / 127
        error = np.abs(dequantize(tensor.data, GGMLQuantizationType.Q8_0).reshape(-1, 32) - value)
        # The scale itself is an fp16 number: 2^-11 of it, 127 times.
        assert (error <= steps * (0.5 + 127 / 2**11) + 1e-7).all(), tensor.name


def test_the_metadata_say_the_architecture_and_how_text_is_split(made: Model) -> None:
    kind, folder, file = made
    fields = {name: field.contents() for name, field in GGUFReader(file).fields.items()}
    family = "llama" if kind.startswith("mistral") else kind.split()[0]
    config = json.loads((folder / "config.json").read_text())
    assert fields["general.architecture"] == family
    assert fields[f"{family}.block_count"] == 2
    assert fields[f"{family}.attention.head_count"] == 6
    assert fields[f"{family}.attention.head_count_kv"] == 2
    assert fields[f"{family}.context_length"] == config["max_position_embeddings"]
    assert fields[f"{family}.rope.freq_base"] == pytest.approx(config["rope_parameters"]["rope_theta"])
    assert fields[f"{family}.attention.layer_norm_rms_epsilon"] == pytest.approx(config["rms_norm_eps"])
    if "head_dim" in KINDS[kind].more:
        assert fields[f"{family}.attention.key_length"] == 32
    split = {"llama": "llama-bpe", "mistral": "smollm"}.get(kind.split()[0], "qwen2")
    assert fields["tokenizer.ggml.pre"] == split
    assert fields["tokenizer.ggml.eos_token_id"] == fields["tokenizer.ggml.padding_token_id"] == EOS_ID
    assert fields["tokenizer.ggml.add_bos_token"] is (split == "llama-bpe")


def test_tokens_merges_and_template_are_those_of_the_tokenizer(made: Model) -> None:
    _, folder, file = made
    fields = GGUFReader(file).fields
    tokens, kinds = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokens) == len(kinds) == ROWS
    for text, number in tokenizer.get_vocab().items():
        assert tokens[number] == text
    assert kinds[EOS_ID] == 3 and kinds[100] == 1
    assert tokens[ROWS - 1] == f"[PAD{ROWS - 1}]" and kinds[ROWS - 1] == 5
    merges = json.loads((folder / "tokenizer.json").read_text())["model"]["merges"]
    assert fields["tokenizer.ggml.merges"].contents() == [" ".join(pair) for pair in merges]
    template = fields["tokenizer.chat_template"].contents()
    assert "generation %}" not in template, "llama.cpp's template reader knows no such tag"
    assert template.startswith("{%- for message in messages %}")


def test_llama_3_s_slowed_frequencies_are_those_of_transformers() -> None:
    rope = {**LLAMA3_ROPE, "original_max_position_embeddings": 8192}
    config = LlamaConfig(hidden_size=2048, num_attention_heads=32, head_dim=64, rope_parameters=rope)
    theirs = LlamaRotaryEmbedding(config).inv_freq
    plain = 1.0 / 500000.0 ** (torch.arange(0, 64, 2) / 64)
    assert torch.allclose(plain / torch.from_numpy(llama3_factors(500000.0, 64, rope)), theirs, rtol=1e-5)


CONFIG = {
    "model_type": "qwen2",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 4096,
    "intermediate_size": 128,
    "rms_norm_eps": 1e-6,
    "vocab_size": 100,
}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"model_type": "gemma3"}, "model_type 'gemma3'; known are qwen2"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"use_sliding_window": True, "sliding_window": 1024}, "slides over 1024 tokens"),
        ({"model_type": "mistral", "sliding_window": 1024}, "slides over 1024 tokens"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding attention"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "scaled by 'yarn'"),
        ({"rms_norm_eps": None}, "lacks or misspells"),
    ],
)
def test_a_model_that_llama_cpp_would_compute_otherwise_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_shape({**CONFIG, **change})


@pytest.mark.parametrize(
    "more, theta",
    [
        ({"rope_theta": 5e5}, 5e5),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 2e6}}, 2e6),
        ({"use_sliding_window": False, "sliding_window": 1024}, 1e4),
    ],
)
def test_configurations_of_transformers_4_and_5_are_read(more: dict[str, Any], theta: float) -> None:
    assert read_shape({**CONFIG, **more}).keys["rope.freq_base"] == theta


def tokenizer_file(**changes: Any) -> dict[str, Any]:
    split = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "ignore_merges": False}
    return {"model": model, "pre_tokenizer": split, "added_tokens": [], **changes}


def added(text: str, number: int, special: bool) -> dict[str, Any]:
    return {"id": number, "content": text, "special": special}


def test_added_tokens_are_told_from_words_and_spare_rows(tmp_path: Path) -> None:
    file = tokenizer_file(added_tokens=[added("<end>", 3, True), added("<terse>", 4, False)])
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    words = read_words(tmp_path, 6)
    assert (words.split, words.merges, words.begins) == ("gpt-2", ["a b"], False)
    assert list(zip(words.tokens, words.kinds, strict=True))[2:] == [
        ("ab", 1),
        ("<end>", 3),
        ("<terse>", 4),
        ("[PAD5]", 5),
    ]


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda file: file["model"].update(byte_fallback=True), "SentencePiece is not supported"),
        (lambda file: file["model"].update(type="Unigram"), "not byte-level BPE"),
        (lambda file: file["model"].update(ignore_merges=True), "no name for its way of splitting"),
        (lambda file: file["pre_tokenizer"].update(add_prefix_space=True), "no name for its way of splitting"),
        (lambda file: file["pre_tokenizer"].update(type="Metaspace"), "no name for its way of splitting"),
        (lambda file: file["added_tokens"].append(added("<big>", 9, True)), "a token 9, the model only 6 rows"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_read_otherwise_is_refused(
    spoil: Callable[[dict[str, Any]], object], words: str, tmp_path: Path
) -> None:
    file = tokenizer_file()
    spoil(file)
    (tmp_path / "tokenizer.json").write_text(json.dumps(file))
    with pytest.raises(InputError, match=words):
        read_words(tmp_path, 6)


@pytest.mark.slow  # the reader takes its time for 151,936 tokens
def test_a_chain_becomes_one_file_that_tells_its_lineage(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "chain.gguf"
    done = kchain(finished, "export", "--format", "gguf", "--type", "q8_0", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    reader = GGUFReader(out)
    query = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_q.weight")
    assert query.tensor_type == GGMLQuantizationType.Q8_0
    told = json.loads(done.stdout)
    lineage = reader.fields["kchain.lineage"].contents()
    assert lineage == ", then ".join(f"{each['phase']} {each['sha256']}" for each in told["lineage"])
    assert list(told["files"]) == ["chain.gguf"]
    assert [path.name for path in tmp_path.iterdir()] == ["chain.gguf"]
