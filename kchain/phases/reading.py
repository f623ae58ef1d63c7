"""One file of a project, as the table that it must be."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kchain.phases.describe import describe
from kchain.phases.schema import PhaseFile
from kchain.phases.uses import USES, UseFile

CHAIN_FILE = "kchain.toml"
PHASE_FOLDER = "phases"

Table = TypeVar("Table", bound=BaseModel)


def read_phase(path: Path, label: str, problems: list[str]) -> PhaseFile | UseFile | None:
    """A phase's file, by its kind; None, and why, where it is wrong."""
    table = _phase_table(path)
    if table is None:
        problems.append(f"{label}: kind: one of train, {', '.join(USES)}")
        return None
    return read_table(path, label, table, problems)


def _phase_table(path: Path) -> type[PhaseFile | UseFile] | None:
    """What a phase's file must be, by its kind; None for an unknown kind. What cannot be read is told later."""
    try:
        kind = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("kind", "train")
    except (OSError, ValueError, RecursionError):
        kind = "train"
    return PhaseFile if kind == "train" else USES.get(str(kind))


def read_table(path: Path, label: str, table: type[Table], problems: list[str]) -> Table | None:
    """A file as this table; None, and why, where it is wrong. `label`: what problems call it."""
    try:
        # Some editors put a byte order mark in front.
        return table.model_validate(_tuples(tomllib.loads(path.read_text(encoding="utf-8-sig"))))
    except OSError as error:
        problems.append(f"{label}: cannot be read: {error.strerror or error}")
    except UnicodeDecodeError:
        problems.append(f"{label}: is not UTF-8 text")
    except ValidationError as error:
        problems += [f"{label}: {text}" for text in describe(error, table)]
    except (ValueError, RecursionError) as error:
        # Not only TOMLDecodeError: a number of 5,000 digits is a plain ValueError.
        problems.append(f"{label}: is not TOML: {error}")
    return None


def _tuples(value: Any) -> Any:
    """Arrays as tuples: the schema takes no other type in place of the one it names."""
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
