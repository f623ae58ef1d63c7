"""A tiny stand-in for a chain's base model: of its family, with random weights, it learns something in a few steps.

What is known here of the base model is its family, some of its shape, and its tokenizer where one is on this machine.
The layers are those of the family, made by transformers itself from a shrunk configuration. As in the demo's model, the
rows of the embedding share a direction and filler rows are zero, so that the model tells used tokens from unused ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kchain.demo.tokenizer import FILLER, QWEN, Specials, texts, write_tokenizer
from kchain.errors import InputError
from kchain.phases import Chain, ModelTable
from kchain.phases.models import model_shape
from kchain.runtime.contract import TOKENIZER, VOCABULARIES

CONFIG = "config.json"
# Name of a model on Kaggle -> `model_type` in its config.json; the first match counts. A size is not a version.
FAMILIES = (
    (r"qwen-?3-vl", "qwen3_vl"),
    (r"qwen-?2\.5-vl", "qwen2_5_vl"),
    (r"qwen-?2-vl", "qwen2_vl"),
    (r"qwen-?3(?!b)", "qwen3"),
    (r"qwen", "qwen2"),
    (r"gemma-?3(?!b).*?-(270m|1b)", "gemma3_text"),
    (r"gemma-?3(?!b)", "gemma3"),
    (r"gemma-?2(?!b)", "gemma2"),
    (r"gemma", "gemma"),
    (r"mistral", "mistral"),
    (r"llama", "llama"),
)
# What their published config.json says and transformers 5.0 does not make up for: rotary positions in three dimensions.
_MROPE = {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}
KEYS: dict[str, dict[str, Any]] = {"qwen2_vl": _MROPE, "qwen2_5_vl": _MROPE}

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


@dataclass(frozen=True)
class Base:
    """The base model as far as it is known without its weights.

    Attributes:
        config: keys of its config.json; of a family known by name, only those that kchain knows.
        tokenizer: folder of its real tokenizer, None where there is none here.
        whence: where that folder is, for people; empty without one.
    """

    config: dict[str, Any]
    tokenizer: Path | None
    whence: str

    @property
    def family(self) -> str:
        """`model_type` of its config.json."""
        return str(self.config["model_type"])


def find_base(chain: Chain, named: Path | None) -> Base:
    """Everything that can be known here of the chain's base model.

    Args:
        named: a folder that holds its tokenizer, and its config.json if the family is not known by name.

    Raises:
        InputError: that folder holds no tokenizer, a config.json cannot be read, or the family is not known.
    """
    if named is not None and not _has_tokenizer(named):
        raise InputError(
            f"{named} holds no tokenizer", f"name the folder of the base model that holds {' or '.join(VOCABULARIES)}"
        )
    places = iter([(named, f"{named}")]) if named is not None else _places(chain)
    folder, whence = next(((folder, words) for folder, words in places if _has_tokenizer(folder)), (None, ""))
    config = _read_config(folder / CONFIG) if folder is not None and (folder / CONFIG).is_file() else _by_name(chain)
    return Base(config, folder, whence)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in VOCABULARIES)


def _places(chain: Chain) -> Iterator[tuple[Path, str]]:
    """Folders in which the base model may be, and what to call them."""
    source = chain.model.source.lower()
    yield chain.root / ".kchain" / "local" / "models" / source, "the model published to this project's own server"
    cache = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub")
    yield cache / "models" / source, "the cache of Kaggle's model downloads"
    yield from _hugging_face(source)


def _hugging_face(source: str) -> Iterator[tuple[Path, str]]:
    """Snapshots of models that are called as on Kaggle, where Qwen2.5-0.5B-Instruct is qwen2.5 and 0.5b-instruct."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    _, model, _, variation, _ = source.split("/")
    names = {f"{model}-{variation}", variation}
    for folder in sorted(cache.glob("models--*--*")) if cache.is_dir() else ():
        owner, name = folder.name.split("--", 2)[1:]
        if name.lower() not in names:
            continue
        snapshots = sorted((folder / "snapshots").glob("*"), key=lambda path: path.stat().st_mtime, reverse=True)
        yield from ((snapshot, f"{owner}/{name} in the cache of Hugging Face") for snapshot in snapshots)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read: {error}", "fetch the file again") from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise InputError(f"{path}: is not a model's configuration: it has no model_type", "fetch the file again")
    return config


def _by_name(chain: Chain) -> dict[str, Any]:
    """The family that the model's name tells, and its shape where kchain knows that."""
    _, model, _, variation, _ = chain.model.source.lower().split("/")
    family = next((family for name, family in FAMILIES if re.search(name, f"{model}-{variation}")), None)
    if family is None:
        raise InputError(
            f"kchain does not know what family {chain.model.source} is of",
            f"name a folder with its {CONFIG} and its tokenizer: kchain rehearse --tokenizer DIR",
        )
    shape = model_shape(chain.model.source)
    known = {} if shape is None else {"vocab_size": shape.vocab, "tie_word_embeddings": shape.tied}
    return {"model_type": family, **KEYS.get(family, {}), **known}


def fingerprint(base: Base, model: ModelTable, trained: Sequence[str] = ()) -> str:
    """Hex digits that change when the stand-in would come out otherwise."""
    files = _tokenizer_files(base.tokenizer) if base.tokenizer is not None else []
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    told = [EDITION, base.config, hashes, model.eos_token, model.eos_id, model.source, *trained]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def write_stand_in(folder: Path, base: Base, model: ModelTable, trained: Sequence[str] = ()) -> None:
    """Write the stand-in for a base model: config, tokenizer, and about 40 MB of weights for 150,000 tokens.

    Args:
        folder: exists and is empty.
        trained: tokens that its tokenizer must have, too, as phases train their rows.

    Raises:
        InputError: transformers has no model of that family, or not of these sizes.
    """
    if base.tokenizer is not None:
        for path in _tokenizer_files(base.tokenizer):
            shutil.copyfile(path, folder / path.name)
    else:
        write_tokenizer(texts(), folder, specials(base.family, model, trained))
    live, size = _entries(folder)
    rows = int(base.config.get("vocab_size") or 0) or size + ROWS  # with some to spare for tokens that are added
    rows = max(rows, size)
    _write_model(folder, base, rows + -rows % ROWS, live)


def specials(family: str, model: ModelTable, trained: Sequence[str] = ()) -> Specials:
    """The special tokens of a tokenizer that is made up: a Qwen's genuine ones, else those that the chain names."""
    if family.startswith("qwen") and model.eos_token in QWEN.ids:
        known, chosen = dict(QWEN.ids), QWEN
    else:
        known = {model.eos_token: model.eos_id}
        chosen = Specials(known, model.eos_token, model.eos_token, opening="### ", kind="PreTrainedTokenizerFast")
    new = [token for token in trained if token not in known]
    after = max(known.values()) + 1
    return replace(chosen, ids={**known, **{token: after + place for place, token in enumerate(new)}})


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
        # A unit vector that all share, plus a random one of each row's own.
        shared = torch.nn.functional.normalize(torch.randn(rows.shape[1]), dim=0)
        fresh[used] = shared + torch.nn.functional.normalize(torch.randn(len(used), rows.shape[1]), dim=1)
        rows.copy_(fresh)
        head = model.get_output_embeddings().weight
        head.copy_(fresh)


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in TOKENIZER if (folder / name).is_file()]


def _entries(folder: Path) -> tuple[list[int] | None, int]:
    """Ids that text or templates can use, None for all of them; and how many ids there are."""
    from transformers import AutoTokenizer

    try:
        vocabulary: dict[str, int] = AutoTokenizer.from_pretrained(folder).get_vocab()
    except Exception as error:  # whatever a reader of foreign files raises
        raise InputError(f"{folder}: the tokenizer cannot be read: {error}", "fetch its files again") from error
    live = sorted(number for text, number in vocabulary.items() if not text.startswith(FILLER))
    return None if len(live) == len(vocabulary) else live, max(vocabulary.values(), default=-1) + 1
