"""Write the pages of docs/ that the code itself tells: one page per command, and the reference of the phase files.

Run with `make docs`; a test fails when a page no longer says what the code says.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kchain.cli import COMMANDS, group
from kchain.orchestrator.advice import TABLE
from kchain.phases import data, schema, uses, values

DOCS = Path(__file__).parent
NOTE = "<!-- written by docs/generate.py; change the code and run `make docs` -->\n"

DURATION = "duration"

# Heading -> table, in the order in which a person writes them.
TABLES: dict[str, tuple[str, type[BaseModel]]] = {
    "`[chain]` in kchain.toml": ("Names the chain, its owner and its machine.", schema.ChainTable),
    "`[model]` in kchain.toml": ("The base model and the token that ends a turn.", schema.Model),
    "phases/NAME.toml": ("A phase; NAME is what you type on the command line.", schema.PhaseFile),
    "`[data]` in a phase": ("The mix a phase learns from.", data.Data),
    "`[[data.sources]]` in a phase": ("One source of examples.", data.Source),
    "`where = [{…}]` in a source": ("One condition on an example: a column and exactly one test.", data.Condition),
    "`[data.quality]` in a phase": ("The share of examples with a fault up to which a phase trains.", data.Quality),
    "`[tokens]` in a phase": ("Tokens whose rows are trained; how styles are used: how-it-works.md.", schema.Tokens),
    "`[lora]` in kchain.toml": ("One configuration for the whole chain.", schema.Lora),
    "`[training]` in kchain.toml or a phase": ("A phase changes only the keys it names.", schema.Training),
    "`[samples]` in kchain.toml or a phase": (
        "Answers that are looked at beside the losses: judging.md.",
        schema.Samples,
    ),
    "`[gates]` in kchain.toml or a phase": ("What must be reached before the chain goes on.", schema.Gates),
    'phases/NAME.toml with `kind = "evaluate"`, `"export"` or `"generate"`': (
        "A phase that trains nothing: it uses, on the target, what another one trained (use-the-model.md), and takes "
        "from that one whatever is not said here. It has one table more, named after its kind.",
        uses.Use,
    ),
    "`[evaluate]` in a phase that evaluates": ("Base and chain are asked the same questions.", uses.Evaluating),
    "`[gates]` in a phase that evaluates": ("What the answers must come to.", uses.EvaluationGates),
    "`[export]` in a phase that exports": ("What is made of the chain.", uses.Exporting),
    "`[generate]` in a phase that answers": ("What the chain is asked, and how it answers.", uses.Generation),
    '`[generate.settings."TOKEN"]` in a phase that answers': ("What one style changes about that.", uses.Style),
}


def command_page(name: str) -> str:
    """The page of one command: its help, and that of the commands below it, as the terminal shows it."""
    top = click.Context(group, info_name="kchain")
    command = group.get_command(top, name)
    assert command is not None
    context = _context(command, name, top)
    helps = [command.get_help(context)]
    if isinstance(command, click.Group):
        helps += [below.get_help(_context(below, word, context)) for word, below in command.commands.items()]
    blocks = "\n\n".join(f"```text\n{text}\n```" for text in helps)
    return f"{NOTE}# kchain {name}\n\n{COMMANDS[name][1]}\n\n{blocks}\n"


def _context(command: click.Command, name: str, parent: click.Context) -> click.Context:
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100)
    context.terminal_width = 100
    return context


def index_page() -> str:
    """The list of all commands."""
    rows = "\n".join(f"| [`kchain {name}`]({name}.md) | {text} |" for name, (_, text) in COMMANDS.items())
    return f"{NOTE}# Commands\n\n| command | what it does |\n| --- | --- |\n{rows}\n"


def phase_files_page() -> str:
    """Every key of every table: type, default, meaning."""
    parts = [
        f"{NOTE}# What stands in kchain.toml and phases/*.toml\n",
        "Unknown keys are refused. A key without a default must be given. "
        'A duration is a number and a unit: `"9h"`, `"90m"`.\n',
    ]
    for heading, (text, table) in TABLES.items():
        parts.append(f"## {heading}\n\n{text}\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |")
        parts += [_row(name, field) for name, field in table.model_fields.items()]
        parts.append("")
    return "\n".join(parts)


def advice_page() -> str:
    """What kchain makes of a failed run: the table it looks things up in."""
    rows = "\n".join(f"| {advice.meaning} | {advice.change} |" for _, advice in TABLE)
    return (
        f"{NOTE}# What a failed run probably means\n\n"
        "kchain shows the failing cell, and looks the log up in this table, from the top. "
        "What the notebook itself said when it stopped comes first.\n\n"
        f"| what happened, probably | what to change |\n| --- | --- |\n{rows}\n"
    )


def _row(name: str, field: FieldInfo) -> str:
    kind = _type(field.annotation) if not _is_duration(field.metadata) else DURATION
    kind += ', "auto"' if values.AUTO in field.metadata else ""
    value = field.get_default(call_default_factory=True)
    default = "" if field.is_required() else f"`{_toml(f'{value // 3600}h' if kind == DURATION and value else value)}`"
    cells = (f"`{name}`", kind, default, field.description or "see its own table")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _is_duration(metadata: Collection[Any]) -> bool:
    return values.DURATION in metadata


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
        return "table of tables" if isinstance(inner[1], type) and issubclass(inner[1], BaseModel) else "table of text"
    if hasattr(annotation, "__metadata__"):
        if _is_duration(annotation.__metadata__):
            return DURATION
        return _type(inner[0])
    return " or ".join(dict.fromkeys(text for part in inner if (text := _type(part))))


def pages() -> Iterator[tuple[Path, str]]:
    """Every generated page: where it goes and its text."""
    yield DOCS / "commands" / "README.md", index_page()
    for name in COMMANDS:
        yield DOCS / "commands" / f"{name}.md", command_page(name)
    yield DOCS / "phase-files.md", phase_files_page()
    yield DOCS / "advice.md", advice_page()


def main() -> int:
    """Write all pages; returns 0."""
    for path, text in pages():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
