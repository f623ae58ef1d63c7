"""A tokenizer in GGUF's words: byte-level BPE whose way of splitting text llama.cpp has under a name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from kchain.errors import InputError
from kchain.export.companions import chat_template, read_json

# The published tokenizers' regular expressions -> (llama.cpp's name, whether whole words of the vocabulary come first).
SPLITS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": ("qwen2", False),
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+": ("llama-bpe", True),
}
# Markers for the training's answer mask: they write nothing, and llama.cpp's template reader does not know them.
_MARKERS = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")
_CURE = "export it with --format safetensors, and convert that with llama.cpp's own converter"


class Kind(IntEnum):
    """GGUF's kinds of tokens."""

    NORMAL = 1
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5


@dataclass(frozen=True)
class Words:
    """A tokenizer.

    Attributes:
        split: llama.cpp's name of the way text is split before BPE.
        tokens, kinds: by id, one for each row of the embedding.
        merges: "left right", in order.
        begins: text is begun with the BOS token.
        template: the chat template; "" where there is none.
    """

    split: str
    tokens: list[str]
    kinds: list[Kind]
    merges: list[str]
    begins: bool
    template: str


def read_words(folder: Path, rows: int) -> Words:
    """The tokenizer in a model's folder, filled up to the embedding's rows.

    Raises:
        InputError: llama.cpp would split or count text differently.
    """
    file = read_json(folder / "tokenizer.json")
    model = file.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _refusal("it is not byte-level BPE (SentencePiece is not supported)")
    tokens, kinds = _tokens(model["vocab"], file.get("added_tokens") or [], rows)
    return Words(
        split=_split(file.get("pre_tokenizer") or {}, bool(model.get("ignore_merges"))),
        tokens=tokens,
        kinds=kinds,
        merges=[merge if isinstance(merge, str) else _merge(merge) for merge in model["merges"]],
        begins=_begins(file.get("post_processor") or {}),
        template=_MARKERS.sub("", chat_template(folder)),
    )


def _refusal(what: str) -> InputError:
    return InputError(f"no GGUF with this tokenizer: {what}", _CURE)


def _split(pre: Mapping[str, Any], whole_words_first: bool) -> str:
    steps = pre.get("pretokenizers") or [pre]
    kinds = [step.get("type") for step in steps]
    if kinds == ["Split", "ByteLevel"] and not steps[1].get("use_regex", True):
        pattern = steps[0].get("pattern", {}).get("Regex")
        found, whole = SPLITS.get(pattern, ("", False))
    elif kinds in (["ByteLevel"], ["Digits", "ByteLevel"]) and steps[-1].get("use_regex", True):
        found, whole = ("gpt-2" if len(kinds) == 1 else "smollm"), False
        if kinds[0] == "Digits" and not steps[0].get("individual_digits"):
            found = ""
    else:
        found, whole = "", False
    if not found or steps[-1].get("add_prefix_space") or whole != whole_words_first:
        raise _refusal("llama.cpp has no name for its way of splitting text")
    return found


def _tokens(vocabulary: Mapping[str, int], added: list[dict[str, Any]], rows: int) -> tuple[list[str], list[Kind]]:
    tokens = [f"[PAD{number}]" for number in range(rows)]
    kinds = [Kind.UNUSED] * rows
    special = {each["id"]: Kind.CONTROL if each["special"] else Kind.USER_DEFINED for each in added}
    known = {**vocabulary, **{each["content"]: each["id"] for each in added}}
    beyond = max(known.values(), default=0)
    if beyond >= rows:
        raise _refusal(f"it has a token {beyond}, the model only {rows} rows")
    for text, number in known.items():
        tokens[number] = text
        kinds[number] = special.get(number, Kind.NORMAL)
    return tokens, kinds


def _merge(parts: list[str]) -> str:
    """Byte-level BPE writes a space as another character, so one space separates the parts unmistakably."""
    return " ".join(parts)


def _begins(post: Mapping[str, Any]) -> bool:
    """Whether the tokenizer itself puts a special token in front of every text."""
    steps = post.get("processors") or [post]
    singles = [step["single"] for step in steps if step.get("type") == "TemplateProcessing" and step.get("single")]
    return any("SpecialToken" in single[0] for single in singles)
