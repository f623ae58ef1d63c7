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
HIDDEN, LAYERS = 128, 2
# Multiples of 64 all over: bitsandbytes quantizes in blocks of 64.
TEXT = {
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "intermediate_size": 256,
    "max_position_embeddings": 32768,
}
# Beside a vision part, whose positions in three dimensions need a head as wide as in the real models.
TEXT_BESIDE_VISION = {**TEXT, "num_attention_heads": 1, "head_dim": 128}
# Families call these differently; each has some of them.
VISION = {
    "depth": LAYERS,
    "num_hidden_layers": LAYERS,
    "hidden_size": HIDDEN,
    "out_hidden_size": HIDDEN,
    "embed_dim": 64,
    "intermediate_size": 64,
    "num_heads": 2,
    "num_attention_heads": 2,
    "deepstack_visual_indexes": [0],
    "fullatt_block_indexes": [0],
}
# What a published configuration says that holds for its own weights alone.
OWN = ("torch_dtype", "dtype", "quantization_config", "auto_map")
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
    rows = int(base.config.get("vocab_size") or 0) or size + ROWS  # with some to spare for tokens that are added
    rows = max(rows, size)
    _write_model(folder, base, rows + -rows % ROWS, live)


def specials(model: Model) -> Specials:
    """The special tokens of a tokenizer that is made up: Qwen's genuine ones, else the one that the chain names."""
    if model.eos_token in QWEN.ids:
        return QWEN
    ids = {model.eos_token: model.eos_id}
    return Specials(ids, model.eos_token, model.eos_token, opening="### ", kind="PreTrainedTokenizerFast")


def shrunk(config: dict[str, Any], rows: int) -> dict[str, Any]:
    """A complete configuration of the same family with few and narrow layers; whatever else it says stays."""
    if "vision_config" not in config:
        return {**config, **TEXT, "vocab_size": rows, **_layer_kinds(config)}
    text, vision = config["text_config"], config["vision_config"]
    text = {**text, **TEXT_BESIDE_VISION, "vocab_size": rows, **_layer_kinds(text)}
    return {
        **config,
        "text_config": text,
        "vision_config": {**vision, **{key: value for key, value in VISION.items() if key in vision}},
    }


def _layer_kinds(config: dict[str, Any]) -> dict[str, Any]:
    """As many kinds of layers as there is room for, where a family has several."""
    kinds = list(dict.fromkeys(config.get("layer_types") or ()))
    return {"layer_types": (kinds * LAYERS)[:LAYERS]} if kinds else {}


def _write_model(folder: Path, base: Base, rows: int, live: list[int] | None) -> None:
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call,unused-ignore]
    torch.manual_seed(SEED)
    try:
        model = _fresh(base, rows)
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"no tiny model of the family {base.family} can be made: {error}",
            "look at the config.json of the base model, and whether this transformers knows the family",
        ) from error
    _make_learnable(model, live)
    model.to(torch.bfloat16).save_pretrained(folder)
    if "quantization_config" in base.config:  # the notebook has something to say about that
        path = folder / CONFIG
        told = json.loads(path.read_text(encoding="utf-8"))
        told["quantization_config"] = base.config["quantization_config"]
        path.write_text(json.dumps(told, indent=2), encoding="utf-8")


def _fresh(base: Base, rows: int) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    said = {key: value for key, value in base.config.items() if key not in OWN}
    small = shrunk({**AutoConfig.for_model(**said).to_dict(), "model_type": base.family}, rows)
    kind: Any = AutoModelForImageTextToText if "vision_config" in small else AutoModelForCausalLM
    return kind.from_config(AutoConfig.for_model(**{key: value for key, value in small.items() if key not in OWN}))


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
