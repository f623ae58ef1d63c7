"""What a saved tokenizer says: its pad token, and the ids of its added tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kchain.orchestrator.json_file import read_object


def saved_pad(path: Path) -> tuple[str | None, int | None]:
    """Pad token and its id in a saved tokenizer; None for what it does not say."""
    file = path / "tokenizer_config.json"
    if not file.is_file():
        return None, None
    config = read_object(file)
    token = config.get("pad_token")
    token = token.get("content") if isinstance(token, dict) else token
    if not isinstance(token, str):
        return None, None
    return token, added_id(path, token)


def added_id(path: Path, token: str) -> int | None:
    """The id of an added token: in tokenizer_config.json (transformers 4) or in tokenizer.json; None without one."""
    file = path / "tokenizer_config.json"
    config = read_object(file) if file.is_file() else {}
    table = config.get("added_tokens_decoder")
    entries: list[tuple[Any, Any]] = list(table.items()) if isinstance(table, dict) else []
    if not entries and (path / "tokenizer.json").is_file():
        added = read_object(path / "tokenizer.json").get("added_tokens")
        entries = (
            [(entry.get("id"), entry) for entry in added if isinstance(entry, dict)] if isinstance(added, list) else []
        )
    for key, entry in entries:
        if isinstance(entry, dict) and entry.get("content") == token and str(key).isdigit():
            return int(key)
    return None
