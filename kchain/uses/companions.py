"""What belongs to a model beside its weights: the adapter's tokenizer, the pad and EOS ids, licence texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from kchain.errors import InputError
from kchain.runtime.contract import CHAT_TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, answer_ends


def copy_tokenizer(source: Path, base: Path, target: Path, pad: dict[str, Any]) -> None:
    """Put one tokenizer in place of what `target` has, its pad and EOS token forced to the chain's.

    Args:
        base: the base model's folder, whose chat template is used where the tokenizer brings none.
        pad: {"token", "id"} of the chain's EOS token.
    """
    for name in TOKENIZER:
        (target / name).unlink(missing_ok=True)
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    for name in (TOKENIZER_CONFIG, "special_tokens_map.json"):
        path = target / name
        if path.is_file() or name == TOKENIZER_CONFIG:
            config = read_json(path) if path.is_file() else {}
            write_json(path, {**config, "pad_token": pad["token"], "eos_token": pad["token"]})
    if not chat_template(target) and (template := chat_template(base)):
        (target / CHAT_TEMPLATE).write_text(template, encoding="utf-8")


def chat_template(folder: Path) -> str:
    """The chat template of a model's folder, in a file of its own or in the tokenizer's configuration; "" for none."""
    file, config = folder / CHAT_TEMPLATE, folder / TOKENIZER_CONFIG
    if file.is_file():
        return file.read_text(encoding="utf-8")
    found = read_json(config).get("chat_template") if config.is_file() else None
    return found if isinstance(found, str) else ""


def force_ids(target: Path, pad: dict[str, Any]) -> None:
    """The pad and EOS ids in the model's and the generation configuration; other ids that end an answer stay."""
    config = read_json(target / "config.json")
    ends = answer_ends(pad["id"], config.get("eos_token_id"))
    # One id where there is one: older readers of config.json take no list.
    write_json(
        target / "config.json", {**config, "pad_token_id": pad["id"], "eos_token_id": ends if ends[1:] else pad["id"]}
    )
    path = target / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    ends = answer_ends(pad["id"], generation.get("eos_token_id"))
    write_json(path, {**generation, "pad_token_id": pad["id"], "eos_token_id": ends})


def copy_licences(base: Path, target: Path) -> list[str]:
    """Copy the licence texts that stand beside the base's weights; returns their names."""
    names = sorted(
        path.name for path in base.iterdir() if path.is_file() and path.name.upper().startswith(("LICEN", "NOTICE"))
    )
    for name in names:
        shutil.copyfile(base / name, target / name)
    return names


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the base model or of an adapter.

    Raises:
        InputError: there is none; an object store may have handed out gzip under the file's name.
    """
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            raise InputError(f"{path} is gzip although its name says otherwise", "unpack it, or fetch it again")
        found = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error!s:.100}", "fetch the model again") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: does not hold a JSON object", "fetch the model again")
    return found


def write_json(path: Path, value: Any) -> None:
    """A JSON file that a person can read."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
