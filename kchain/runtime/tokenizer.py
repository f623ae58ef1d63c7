"""The tokenizer, with the pad token forced to the token that ends an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .events import emit
from .failure import Stop


def load(folder: Path, pad: dict[str, Any]) -> Any:
    """The tokenizer of a model folder; its pad and EOS token are the chain's, whatever it came with.

    Args:
        pad: {"token", "id"} of the chain's EOS token.

    Raises:
        Stop: the tokenizer gives that token another id.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    arrived = tokenizer.pad_token
    tokenizer.eos_token = pad["token"]
    # Not `if tokenizer.pad_token is None`: Qwen arrives with <|vision_pad|> or <|endoftext|>, which ends in gibberish.
    tokenizer.pad_token = pad["token"]
    check("tokenizer pad", tokenizer.pad_token_id, pad)
    check("tokenizer eos", tokenizer.eos_token_id, pad)
    tokenizer.padding_side = "right"
    emit("pad", token=pad["token"], id=tokenizer.pad_token_id, arrived=arrived)
    return tokenizer


def force_on_model(model: Any, pad: dict[str, Any]) -> None:
    """Sets the pad id in the model's config and its generation config, and asserts both."""
    model.config.pad_token_id = pad["id"]
    model.generation_config.pad_token_id = pad["id"]
    check("model config", model.config.pad_token_id, pad)
    check("generation config", model.generation_config.pad_token_id, pad)


def check(where: str, found: int | None, pad: dict[str, Any]) -> None:
    """Stops when an id is not the chain's pad id."""
    if found != pad["id"]:
        raise Stop(
            f"{where}: {pad['token']} has id {found}, the chain says {pad['id']}",
            "set model.eos_token and model.eos_id in kchain.toml to what the base model's tokenizer has",
        )
