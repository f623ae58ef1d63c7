"""A tiny model with random weights of any family, on which a LoRA adapter can learn something in a few steps.

Its layers are those of the family, made by transformers itself from a shrunk configuration. As in the demo's model, the
rows of the embedding share a direction and filler rows are zero, so that the model tells used tokens from unused ones.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kchain.demo.samples import texts
from kchain.demo.tokenizer import FILLER, QWEN, Specials, write_tokenizer
from kchain.errors import InputError
from kchain.phases import Model
from kchain.rehearse.base import CONFIG, FILES, Base

SEED = 1
HIDDEN, LAYERS, HEADS, HEAD, INNER = 128, 2, 2, 64, 256
# Multiples of 64 all over: bitsandbytes quantizes in blocks of 64.
SIZES = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 1,
    "head_dim": HEAD,
    "intermediate_size": INNER,
    "max_position_embeddings": 32768,
}
# Sizes of which transformers derives the right number for so few layers.
DERIVED = ("layer_types", "max_window_layers", "torch_dtype", "dtype", "quantization_config", "auto_map")
# Rows are made up to a multiple of this, as the families do.
ROWS = 64
# Changes when the same input shall give another model.
EDITION = 1


def fingerprint(base: Base, model: Model) -> str:
    """Hex digits that change when the stand-in would come out otherwise."""
    files = _tokenizer_files(base.tokenizer) if base.tokenizer is not None else []
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    told = [EDITION, base.config, hashes, model.eos_token, model.eos_id, model.source]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def write_stand_in(folder: Path, base: Base, model: Model) -> None:
    """Write the stand-in for a base model: config, tokenizer, and about 40 MB of weights for 150,000 tokens.

    Args:
        folder: exists and is empty.

    Raises:
        InputError: transformers has no model of that family, or not of these sizes.
    """
    if base.tokenizer is not None:
        for path in _tokenizer_files(base.tokenizer):
            shutil.copyfile(path, folder / path.name)
    else:
        write_tokenizer(texts(), folder, specials(model))
    live, size = _entries(folder)
    rows = max(int(base.config.get("vocab_size") or 0), size)
    _write_model(folder, base, rows + -rows % ROWS, live)


def specials(model: Model) -> Specials:
    """The special tokens of a tokenizer that is made up: Qwen's genuine ones, else the one that the chain names."""
    if model.eos_token in QWEN.ids:
        return QWEN
    ids = {model.eos_token: model.eos_id}
    return Specials(ids, model.eos_token, model.eos_token, opening="### ", kind="PreTrainedTokenizerFast")


def shrunk(config: dict[str, Any], rows: int) -> dict[str, Any]:
    """A configuration of the same family with few and narrow layers; whatever else it says stays."""
    kept = {key: value for key, value in config.items() if key not in DERIVED}
    return {**kept, **SIZES, "vocab_size": rows}


def _write_model(folder: Path, base: Base, rows: int, live: list[int] | None) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    torch.manual_seed(SEED)
    tiny = shrunk(base.config, rows)
    try:
        config = AutoConfig.for_model(**tiny)
        model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call,unused-ignore]
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"no tiny model of the family {base.family} can be made: {error}",
            "look at the config.json of the base model, and whether this transformers knows the family",
        ) from error
    _make_learnable(model, live)
    model.to(torch.bfloat16).save_pretrained(folder)
    if "quantization_config" in base.config:  # the notebook has something to say about that
        path = folder / CONFIG
        told = {
            **json.loads(path.read_text(encoding="utf-8")),
            "quantization_config": base.config["quantization_config"],
        }
        path.write_text(json.dumps(told, indent=2), encoding="utf-8")


def _make_learnable(model: Any, live: list[int] | None) -> None:
    """Scale a model's weights in place.

    Args:
        live: rows of the embedding that text can use, None for all.
    """
    import torch

    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name and "lm_head" not in name:
                torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        rows = model.get_input_embeddings().weight
        fresh = torch.zeros_like(rows)
        used = torch.arange(len(rows)) if live is None else torch.tensor(live)
        fresh[used] = _directions(len(used), rows.shape[1])
        rows.copy_(fresh)
        head = model.get_output_embeddings().weight
        head.copy_(fresh)


def _directions(count: int, width: int) -> Any:
    """(count, width): a shared unit vector plus a random unit vector of each row's own."""
    import torch

    shared = torch.nn.functional.normalize(torch.randn(width), dim=0)
    return shared + torch.nn.functional.normalize(torch.randn(count, width), dim=1)


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in FILES if (folder / name).is_file()]


def _entries(folder: Path) -> tuple[list[int] | None, int]:
    """Ids that text or templates can use, None for all of them; and how many ids there are."""
    from transformers import AutoTokenizer

    try:
        vocabulary: dict[str, int] = AutoTokenizer.from_pretrained(folder).get_vocab()
    except Exception as error:  # whatever a reader of foreign files raises
        raise InputError(f"{folder}: the tokenizer cannot be read: {error}", "fetch its files again") from error
    live = sorted(number for text, number in vocabulary.items() if not text.startswith(FILLER))
    return None if len(live) == len(vocabulary) else live, _size(vocabulary.values())


def _size(numbers: Iterable[int]) -> int:
    return max(numbers, default=-1) + 1
