"""The tokenizer: the one that knows every token added so far, its pad token forced to the one that ends an answer."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .adapters import Adapter
from .contract import CHAT_TEMPLATES, TOKENIZER, has_tokenizer
from .failure import Stop, emit


@dataclass(frozen=True)
class TokenRow:
    """A token whose row is trained, and the tokens whose mean it begins as: itself, or the pieces of a new one's name.

    Spare rows of a base were never trained and lie near zero; the pieces give each new token a start of its own.
    """

    token: str
    id: int
    begins_as: tuple[int, ...]


def is_tokenizer_file(file: Path) -> bool:
    """Whether a file of a model folder belongs to its tokenizer alone; a chat template may be the base's."""
    return file.name in TOKENIZER and file.name not in CHAT_TEMPLATES


def tokenizer_folder(base: Path, adapters: Sequence[Adapter]) -> Path:
    """The folder of the last adapter with a whole tokenizer: it knows all tokens so far. The base's where none has."""
    folders = (adapter.folder for adapter in reversed(adapters))
    return next((each for each in folders if has_tokenizer(file.name for file in each.iterdir())), base)


def load(base: Path, pad: dict[str, Any], adapters: Sequence[Adapter] = ()) -> Any:
    """The tokenizer of a base model and the adapters on it; pad and EOS are the chain's, whatever it came with.

    Args:
        base: folder of the base model.
        pad: {"token", "id"} of the chain's EOS token.
        adapters: those the phase builds on, root first; the last one that has a tokenizer gives it.

    Raises:
        Stop: it gives the pad token, or a token of the base, another id.
    """
    folder = tokenizer_folder(base, adapters)
    tokenizer = _read(folder, base)
    if folder != base:
        _check_base_tokens(tokenizer, _read(base, base), folder)
    arrived = tokenizer.pad_token
    tokenizer.eos_token = pad["token"]
    # Not `if tokenizer.pad_token is None`: Qwen arrives with <|vision_pad|> or <|endoftext|>, which ends in gibberish.
    tokenizer.pad_token = pad["token"]
    check("tokenizer pad", tokenizer.pad_token_id, pad)
    check("tokenizer eos", tokenizer.eos_token_id, pad)
    tokenizer.padding_side = "right"
    emit("pad", token=pad["token"], id=tokenizer.pad_token_id, arrived=arrived)
    return tokenizer


def token_rows(tokenizer: Any, tokens: dict[str, list[str]], base: Path) -> list[TokenRow]:
    """Adds the new tokens of a phase to its tokenizer; returns every token whose row is trained, in order.

    The embedding is never resized: an adapter with rows beyond the base's could not be loaded on it by PEFT alone.

    Args:
        tokens: {"added": new ones, "trained": ones that are there}.
        base: folder of the base model.

    Raises:
        Stop: a token to add exists, one to train does not, or the embedding has no row left.
    """
    if not any(tokens.values()):
        return []
    from .changes import embedding_rows  # needs torch

    rows, vocabulary = embedding_rows(base), tokenizer.get_vocab()
    if known := [token for token in tokens["added"] if token in vocabulary]:
        raise Stop(
            f"tokens.added: {', '.join(known)} exists already", "name it in tokens.trained, or choose another name"
        )
    pieces = {token: _ids(tokenizer, token) for token in tokens["added"] + tokens["trained"]}
    if unknown := [token for token in tokens["trained"] if pieces[token] != [vocabulary.get(token)]]:
        reason = f"tokens.trained: {', '.join(unknown)} is not a token of the tokenizer, which reads it as several"
        raise Stop(reason, "correct it, or name it in tokens.added")
    _add(tokenizer, tokens["added"])
    found = [TokenRow(token, tokenizer.convert_tokens_to_ids(token), tuple(pieces[token])) for token in pieces]
    if missing := [row for row in found if row.id >= rows]:
        raise Stop(
            f"tokens.added: {missing[0].token} would be token {missing[0].id}, and the base model has {rows} rows",
            "name tokens that the model has and never uses, such as <|reserved_special_token_0|>, in tokens.trained",
        )
    return found


def check_styles(tokenizer: Any, styles: Sequence[str]) -> None:
    """Refuses a style that is not one token of the vocabulary."""
    if unknown := [style for style in styles if len(_ids(tokenizer, style)) != 1]:
        cure = "name it in tokens.added of this phase or of one before it, or correct the source's style"
        raise Stop(f"style {', '.join(unknown)}: no token of that name", cure)


def force_on_model(model: Any, pad: dict[str, Any]) -> None:
    """Sets the pad id in the model's config and its generation config, and asserts both."""
    model.config.pad_token_id = pad["id"]
    model.config.get_text_config().pad_token_id = pad["id"]  # another one where a model sees
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


def _read(folder: Path, base: Path) -> Any:
    from transformers import AutoConfig, AutoTokenizer

    if folder == base:
        return AutoTokenizer.from_pretrained(base)
    # The config of the base chooses the class; an adapter's folder has none.
    return AutoTokenizer.from_pretrained(folder, config=AutoConfig.from_pretrained(base), local_files_only=True)


def _check_base_tokens(tokenizer: Any, of_base: Any, folder: Path) -> None:
    """Refuses an adapter's tokenizer that reads the base's tokens otherwise; lends it the base's template."""
    vocabulary = tokenizer.get_vocab()
    moved = [token for token, number in of_base.get_vocab().items() if vocabulary.get(token) != number]
    if moved:
        raise Stop(
            f"the tokenizer in {folder} is not the base model's with tokens added: {len(moved)} tokens have other ids, "
            f"such as {moved[0]!r}",
            "the adapter was trained on another base model: adopt another one, or leave its tokenizer out",
        )
    tokenizer.chat_template = tokenizer.chat_template or of_base.chat_template


def _ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _add(tokenizer: Any, tokens: Sequence[str]) -> None:
    """Adds tokens, and makes sure that the saved tokenizer gives them the same ids when it is read again."""
    if not tokens:
        return
    from tokenizers import AddedToken

    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in tokens])
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        again = type(tokenizer).from_pretrained(folder)
    if tokenizer.convert_tokens_to_ids(list(tokens)) != again.convert_tokens_to_ids(list(tokens)):
        cure = "use a base model whose tokenizer is in transformers' own format"
        raise Stop("tokens.added: their ids change when the tokenizer is saved and read again", cure)
