"""Small models with random weights, one of every kind that kchain writes as GGUF, with tokenizers that split text as
the published ones do."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kchain.demo.tokenizer import SPECIALS, TEXT_ENTRIES, WORDS, texts, write_tokenizer

# The demo's tokenizer without its filler: small, with special tokens right behind the words, and rows to spare.
FIRST_SPECIAL = TEXT_ENTRIES
BOS_ID, EOS_ID = FIRST_SPECIAL, FIRST_SPECIAL + SPECIALS.index("<|im_end|>")
ROWS = 1536
# Random weights give logits of a trained model's spread when the last norm is about this.
LAST_NORM = 6.0


@dataclass(frozen=True)
class Kind:
    """A model class of transformers and what its configuration has beside the common part."""

    config: str
    words: str = "qwen2"
    more: dict[str, Any] = field(default_factory=dict)


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS = {
    "qwen2 tied": Kind("Qwen2Config", more={"tie_word_embeddings": True}),
    "qwen2 untied": Kind("Qwen2Config", more={"tie_word_embeddings": False}),
    "qwen3 tied": Kind("Qwen3Config", more={"tie_word_embeddings": True, "head_dim": 32}),
    "qwen3 untied": Kind("Qwen3Config", more={"tie_word_embeddings": False, "head_dim": 32}),
    "llama tied": Kind("LlamaConfig", "llama-bpe", {"tie_word_embeddings": True, "rope_parameters": LLAMA3_ROPE}),
    "mistral untied": Kind("MistralConfig", "smollm", {"head_dim": 32, "sliding_window": None}),
}


def build(folder: Path, name: str, seed: int = 7) -> Path:
    """Write the model called `name` in KINDS and its tokenizer into `folder`, as fp16."""
    import torch
    import transformers

    kind = KINDS[name]
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(texts(), folder)
    _shorten(folder)
    _split_as(folder, kind.words)
    common = {
        "vocab_size": ROWS,
        "hidden_size": 96,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
    }
    config = getattr(transformers, kind.config)(**{**common, **kind.more})
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for weight_name, weight in model.named_parameters():
        if weight_name.endswith("bias"):
            weight.data.normal_(std=0.1)
    model.model.norm.weight.data *= LAST_NORM
    model.half().save_pretrained(folder)
    return folder


def _shorten(folder: Path) -> None:
    """Take the filler out of the vocabulary and number the special tokens anew."""
    path = folder / "tokenizer.json"
    file = json.loads(path.read_text(encoding="utf-8"))
    words = {text: number for text, number in file["model"]["vocab"].items() if number < FIRST_SPECIAL}
    file["model"]["vocab"] = words
    for place, token in enumerate(file["added_tokens"]):
        token["id"] = FIRST_SPECIAL + place
    path.write_text(json.dumps(file, ensure_ascii=False), encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    decoder = config["added_tokens_decoder"].values()
    config["added_tokens_decoder"] = {str(FIRST_SPECIAL + place): token for place, token in enumerate(decoder)}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")


def _split_as(folder: Path, words: str) -> None:
    """Change the demo's tokenizer, which splits as Qwen2 does, into one that splits as another published one does."""
    path = folder / "tokenizer.json"
    file = json.loads(path.read_text(encoding="utf-8"))
    if words == "llama-bpe":
        file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = WORDS.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
        file["model"]["ignore_merges"] = True
        file["normalizer"] = None
        first = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
        text = {"Sequence": {"id": "A", "type_id": 0}}
        file["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [first, text],
            "pair": [first, text, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [BOS_ID], "tokens": ["<|endoftext|>"]}},
        }
    elif words == "smollm":
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        digits = {"type": "Digits", "individual_digits": True}
        file["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, level]}
        file["normalizer"] = None
    path.write_text(json.dumps(file, ensure_ascii=False), encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    # The class of Qwen2 would put its own way of splitting in the file's place.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
