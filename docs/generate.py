"""Write the pages of docs/ that the code itself tells: one page per command, and the reference of the phase files.

Run with `make docs`; a test fails when a page no longer says what the code says.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kchain.cli import COMMANDS, group
from kchain.phases import schema

DOCS = Path(__file__).parent
NOTE = "<!-- written by docs/generate.py; change the code and run `make docs` -->\n"

# Heading -> table, in the order in which a person writes them.
TABLES: dict[str, tuple[str, type[BaseModel]]] = {
    "`[chain]` in kchain.toml": ("Names the chain, its owner and its machine.", schema.ChainTable),
    "`[model]` in kchain.toml": ("The base model and the token that ends a turn.", schema.Model),
    "phases/NAME.toml": ("A phase; NAME is what you type on the command line.", schema.PhaseFile),
    "`[data]` in a phase": ("The mix a phase learns from.", schema.Data),
    "`[[data.sources]]` in a phase": ("One source of examples.", schema.Source),
    "`where = [{…}]` in a source": ("One condition on an example: a column and exactly one test.", schema.Condition),
    "`[lora]` in kchain.toml": ("One configuration for the whole chain.", schema.Lora),
    "`[training]` in kchain.toml or a phase": ("A phase changes only the keys it names.", schema.Training),
    "`[gates]` in kchain.toml or a phase": ("What must be reached before the chain goes on.", schema.Gates),
}


def command_page(name: str) -> str:
    """The page of one command: its help as the terminal shows it."""
    command = group.get_command(click.Context(group, info_name="kchain"), name)
    assert command is not None
    context = click.Context(
        command, info_name=name, parent=click.Context(group, info_name="kchain"), max_content_width=100
    )
    context.terminal_width = 100
    return f"{NOTE}# kchain {name}\n\n{COMMANDS[name][1]}\n\n```text\n{command.get_help(context)}\n```\n"


def index_page() -> str:
    """The list of all commands."""
    rows = "\n".join(f"| [`kchain {name}`]({name}.md) | {text} |" for name, (_, text) in COMMANDS.items())
    return f"{NOTE}# Commands\n\n| command | what it does |\n| --- | --- |\n{rows}\n"


def phase_files_page() -> str:
    """Every key of every table: type, default, meaning."""
    parts = [
        f"{NOTE}# What stands in kchain.toml and phases/*.toml\n",
        "Unknown keys are refused. A key without a default must be given.\n",
    ]
    for heading, (text, table) in TABLES.items():
        parts.append(f"## {heading}\n\n{text}\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |")
        parts += [_row(name, field) for name, field in table.model_fields.items()]
        parts.append("")
    return "\n".join(parts)


def _row(name: str, field: FieldInfo) -> str:
    default = "" if field.is_required() else f"`{_toml(field.get_default(call_default_factory=True))}`"
    cells = (f"`{name}`", _type(field.annotation), default, field.description or "see its own table")
    return "| " + " | ".join(cell.replace("|", "or") for cell in cells) + " |"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return "table" if isinstance(value, BaseModel) else "not set" if value is None else str(value)


def _type(annotation: Any) -> str:
    """A type as a writer of TOML knows it."""
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): ""}
    if annotation in names:
        return names[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    inner = getattr(annotation, "__args__", ())
    origin = str(getattr(annotation, "__origin__", annotation))
    if "Literal" in origin:
        return ", ".join(f'"{word}"' for word in inner)
    if "tuple" in origin:
        return f"list of {_type(inner[0])}"
    if "dict" in origin:
        return "table of text"
    if hasattr(annotation, "__metadata__"):
        return _type(inner[0])
    return " or ".join(dict.fromkeys(text for part in inner if (text := _type(part))))


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated page: where it goes and its text."""
    yield DOCS / "commands" / "README.md", index_page()
    for name in COMMANDS:
        yield DOCS / "commands" / f"{name}.md", command_page(name)
    yield DOCS / "phase-files.md", phase_files_page()


def main() -> int:
    """Write all pages; returns 0."""
    for path, text in pages():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
