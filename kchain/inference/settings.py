"""How an answer is drawn, and what each style changes about it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from kchain.errors import InputError
from kchain.phases.values import Strict

# Read from the project's folder when it is there and no other file is named.
STYLES = Path("styles.toml")


@dataclass(frozen=True)
class Settings:
    """How an answer is drawn.

    Attributes:
        max_tokens: tokens of an answer, at most.
        temperature: 0: always the likeliest token.
        top_p: draw from the likeliest tokens that have this share together.
        repetition_penalty: above 1: what was said already becomes less likely.
        seed: the same seed draws the same answer.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0


class Style(Strict):
    """The table of one style in styles.toml; a key that is left out changes nothing."""

    max_tokens: int | None = Field(None, ge=1)
    temperature: Annotated[float, Field(ge=0.0, le=10.0)] | None = None
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0.0, le=10.0)] | None = None


Styles = Mapping[str, Style]
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
        return _TABLES.validate_python(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}", f"keys of a style: {', '.join(_KEYS)}"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as TOML: {error}", "see docs/use-the-model.md") from None


def settings_for(style: str | None, styles: Styles, typed: Mapping[str, Any]) -> Settings:
    """What holds for a style: what was typed, then what its table says, then the defaults.

    Args:
        typed: settings that were given on the command line; None for those that were not.
    """
    table = styles[style].model_dump(exclude_none=True) if style and style in styles else {}
    given = {key: value for key, value in typed.items() if value is not None}
    return replace(Settings(), **(table | given))
