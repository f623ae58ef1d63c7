"""The demo's sample data sets, and a small tokenizer with genuine special ids that is trained on them.

It is byte-level BPE, filled up with entries that no text can produce, so that the special tokens get the ids they have
in the real model. The filler (5 MB on disk for Qwen2.5) is worth it: leaving a gap instead makes the library renumber
tokens that are added later.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any

# The base model that the demo publishes; `demo.model` makes it.
MODEL = "kchain/tiny-qwen/transformers/random/1"


@dataclass(frozen=True)
class Sample:
    """One data set: its address on the server, the file of this package, and the file's name in the data set."""

    ref: str
    source: str
    file: str = "train.jsonl"

    def text(self) -> str:
        return files("kchain.demo").joinpath("data", self.source).read_text(encoding="utf-8")

    def write(self, folder: Path) -> None:
        """Write the data set's only file into `folder`."""
        (folder / self.file).write_text(self.text(), encoding="utf-8")


SAMPLES = (
    Sample("kchain/tiny-code", "tiny-code.jsonl"),
    Sample("kchain/tiny-linux", "tiny-linux.jsonl"),
    # Ends in the middle of a string: what a phase does with a source that cannot be read.
    Sample("kchain/tiny-terminal", "tiny-terminal.jsonl", "commands.json"),
    Sample("kchain/tiny-stories", "tiny-stories.jsonl"),
    Sample("kchain/tiny-chat", "tiny-chat.jsonl"),
)


def texts() -> Iterator[str]:
    """Every string of every sample that can be read, for the tokenizer to learn words from."""
    for sample in SAMPLES:
        if sample.file.endswith(".jsonl"):
            for line in sample.text().splitlines():
                yield from _strings(json.loads(line))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _strings(part)


# Ids 151643 and up, in order, as Qwen2.5's published tokenizer_config.json has them. The chain depends on four:
# 151643 ends a document, 151644 opens a turn, 151645 ends it, 151654 is the pad token some Qwen variants come with.
SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
FIRST_SPECIAL = 151643
EOS = "<|im_end|>"
EOS_ID = FIRST_SPECIAL + SPECIALS.index(EOS)
# On purpose not the EOS token: the notebook has to force it, and says so.
PAD = "<|vision_pad|>"
# Entries that text can produce, the 256 bytes included; enough to make most words of the sample data one token.
TEXT_ENTRIES = 1500

# Qwen2's split of text into words, before BPE joins bytes within them.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# What an entry that no text can produce is called.
FILLER = "<|unused_"

# A turn ends with the EOS token; the generation markers let the library say which tokens the assistant wrote.
_CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '[OPEN]' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{% generation %}{{- message['content'] + '[EOS]' }}{% endgeneration %}"
    "{%- else %}{{- message['content'] + '[EOS]' }}{%- endif %}"
    "{{- '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '[OPEN]assistant\\n' }}{%- endif %}"
)


@dataclass(frozen=True)
class Specials:
    """The special tokens of a tokenizer.

    Attributes:
        ids: of each token.
        eos, pad: what it calls its EOS and its pad token.
        opening: text in front of the role of a turn.
        kind: the class that transformers reads it with.
    """

    ids: Mapping[str, int]
    eos: str
    pad: str
    opening: str
    kind: str

    @property
    def chat_template(self) -> str:
        """Every turn ended by the EOS token; ChatML for Qwen."""
        return _CHAT_TEMPLATE.replace("[OPEN]", self.opening).replace("'[EOS]'", json.dumps(self.eos))


QWEN = Specials(
    ids={text: FIRST_SPECIAL + place for place, text in enumerate(SPECIALS)},
    eos=EOS,
    pad=PAD,
    opening="<|im_start|>",
    kind="Qwen2Tokenizer",
)


def write_tokenizer(texts: Iterable[str], folder: Path, specials: Specials = QWEN) -> int:
    """Train on `texts` and write tokenizer.json and tokenizer_config.json into `folder`.

    Returns:
        How many entries text can produce. They have the first ids that no special token has; filler has the others.
    """
    trained, merges = _train(texts)
    # What was trained is numbered around the special tokens, which keep their ids; then comes filler.
    taken = set(specials.ids.values())
    free = (number for number in count() if number not in taken)
    vocabulary = {text: next(free) for text in sorted(trained, key=trained.__getitem__)}
    while (number := next(free)) < max(taken):
        vocabulary[f"{FILLER}{number}|>"] = number
    contents = {
        "tokenizer.json": _tokenizer({**vocabulary, **specials.ids}, merges, specials),
        "tokenizer_config.json": _configuration(specials),
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return len(trained)


def _train(texts: Iterable[str]) -> tuple[dict[str, int], list[list[str]]]:
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=TEXT_ENTRIES, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    # Older versions write a merge as one string with a space between its two parts.
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    return model["vocab"], merges


def _tokenizer(vocabulary: dict[str, int], merges: list[list[str]], specials: Specials) -> dict[str, object]:
    """The content of tokenizer.json: what `tokenizers` itself would write for this model."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": WORDS}, "behavior": "Isolated", "invert": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": number, **_special(text)} for text, number in _by_id(specials)],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level,
        "decoder": {**byte_level, "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": merges,
        },
    }


def _configuration(specials: Specials) -> dict[str, object]:
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(number): _special(text) for text, number in _by_id(specials)},
        "additional_special_tokens": [text for text, _ in _by_id(specials) if text != "<|endoftext|>"],
        "bos_token": None,
        "chat_template": specials.chat_template,
        "clean_up_tokenization_spaces": False,
        "eos_token": specials.eos,
        "errors": "replace",
        "model_max_length": 32768,
        "pad_token": specials.pad,
        "split_special_tokens": False,
        "tokenizer_class": specials.kind,
        "unk_token": None,
    }


def _by_id(specials: Specials) -> list[tuple[str, int]]:
    return sorted(specials.ids.items(), key=lambda token: token[1])


def _special(text: str) -> dict[str, object]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    return {"content": text, **flags, "special": True}
