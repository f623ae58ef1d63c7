"""What is known here of a chain's base model: its family, some of its shape, and its tokenizer where one lies about.

Nothing is downloaded. Looked for, in this order: the folder that was named, the model as it was published to the
project's own server, the cache of Kaggle's model downloader, the cache of Hugging Face.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.errors import InputError
from kchain.phases import Chain
from kchain.phases.models import model_shape

# A folder holds a tokenizer if it has one of these; the others of FILES belong to it.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
FILES = (
    *TOKENIZERS, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
CONFIG = "config.json"
# Name of a model on Kaggle -> `model_type` in its config.json; the first that is found in it counts. A size is none.
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
            f"{named} holds no tokenizer", f"name the folder of the base model that holds {' or '.join(TOKENIZERS)}"
        )
    places = iter([(named, f"{named}")]) if named is not None else _places(chain)
    folder, whence = next(((folder, words) for folder, words in places if _has_tokenizer(folder)), (None, ""))
    config = _read_config(folder / CONFIG) if folder is not None and (folder / CONFIG).is_file() else _by_name(chain)
    return Base(config, folder, whence)


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in TOKENIZERS)


def _places(chain: Chain) -> Iterator[tuple[Path, str]]:
    """Folders in which the base model may lie, and what to call them."""
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
        raise InputError(f"{path}: is no configuration of a model: it has no model_type", "fetch the file again")
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
