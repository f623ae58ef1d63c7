"""JSON files that came with an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kchain.errors import AdapterRefused


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        AdapterRefused: there is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterRefused(
            f"{path}: cannot be read as JSON: {error!s:.100}", "pull it again, or train it again"
        ) from None
    if not isinstance(found, dict):
        raise AdapterRefused(f"{path}: holds no JSON object", "pull it again, or train it again")
    return found
