"""styles.toml: what each style changes about the answers."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from kchain.errors import InputError
from kchain.inference.settings import Styles
from kchain.phases import Style

# Read from the project's folder when it is there and no other file is named.
STYLES = Path("styles.toml")
_KEYS = tuple(Style.model_fields)
_TABLES = TypeAdapter(dict[str, Style])


def read_styles(root: Path, given: Path | None) -> Styles:
    """The styles of a file by their tokens; none where no file is named and the project has none.

    Raises:
        InputError: the file cannot be read, or says something that is no style.
    """
    path = given if given is not None else root / STYLES
    if given is None and not path.is_file():
        return {}
    try:
        tables = _TABLES.validate_python(tomllib.loads(path.read_text(encoding="utf-8-sig")))
        return {token: table.model_dump(exclude_none=True) for token, table in tables.items()}
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}", f"keys of a style: {', '.join(_KEYS)}"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as TOML: {error}", "see docs/use-the-model.md") from None
