"""Write the pages of docs/ that the code itself tells: one page per command, and the reference of the phase files.

Run with `make docs`; a test fails when a page no longer says what the code says.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from copy import copy
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from kchain.cli import COMMANDS, group
from kchain.orchestrator.judging.advice import TABLE
from kchain.phases import data, schema, uses, values

DOCS = Path(__file__).parent
NOTE = "<!-- generated: make docs -->\n"

DURATION = "duration"

# Parameter -> option and meaning, of what many commands have: their pages link to this list.
SHARED = {
    "target": ("--target TARGET", "`kaggle`, `local`, or the URL of a kchain server; the default is the chain's."),
    "base": ("--base DIR", "folder of the original base model; the default is the local server's copy."),
    "as_json": ("--json", "print one JSON document (the inbox: a line per file)."),
}

# Heading -> what has to be said of it, and its table, in the order in which a person writes them.
TABLES: dict[str, tuple[str, type[BaseModel]]] = {
    "`[chain]` in kchain.toml": ("", schema.ChainTable),
    "`[model]` in kchain.toml": ("", schema.ModelTable),
    "phases/NAME.toml": ("A phase; NAME is what you type on the command line.", schema.PhaseFile),
    "`[data]` in a phase": ("The examples of a phase: [data.md](data.md).", data.Data),
    "`[[data.sources]]` in a phase": ("", data.Source),
    "`where = [{…}]` in a source": ("One condition: a column and exactly one test.", data.Condition),
    "`[data.quality]` in a phase": (
        "Faults and their thresholds: the share of examples above which a phase does not train.",
        data.Quality,
    ),
    "`[tokens]` in a phase": (
        "Tokens whose embedding rows are trained: [style tokens](how-it-works.md#style-tokens).",
        schema.TokensTable,
    ),
    "`[lora]` in kchain.toml": ("One configuration for the whole chain.", schema.Lora),
    "`[training]` in kchain.toml or a phase": ("A phase changes only the keys it names.", schema.Training),
    "`[samples]` in kchain.toml or a phase": (
        "Answers sampled beside the losses: [judging.md](judging.md).",
        schema.Samples,
    ),
    "`[gates]` in kchain.toml or a phase": (
        "Conditions for the next phase to start. A gate that is left out is not checked.",
        schema.Gates,
    ),
    'phases/NAME.toml with `kind = "evaluate"`, `"export"` or `"generate"`': (
        "A phase that trains nothing but uses, on the target, what another one trained: "
        "[use-the-model.md](use-the-model.md#on-kaggle-without-the-base-model-here). What it leaves out is as in that "
        "phase. It has one more table, named after its kind.",
        uses.UseFile,
    ),
    "`[evaluate]` in a phase that evaluates": ("", uses.Evaluating),
    "`[gates]` in a phase that evaluates": ("", uses.EvaluationGates),
    "`[export]` in a phase that exports": ("", uses.Exporting),
    "`[generate]` in a phase that answers": ("", uses.Generation),
}


def command_page(name: str) -> str:
    """The page of one command: its help, and that of the commands below it, without the options that many have."""
    top = click.Context(group, info_name="kchain")
    command = group.get_command(top, name)
    assert command is not None
    if isinstance(command, click.Group):
        parent = _context(command, name, top)
        told = [(below, _context(below, word, parent)) for word, below in command.commands.items()]
    else:
        told = [(command, _context(command, name, top))]
    blocks = "\n\n".join(f"```text\n{_own(below).get_help(context)}\n```{_shared(below)}" for below, context in told)
    return f"{NOTE}# kchain {name}\n\n{blocks}\n"


def _own(command: click.Command) -> click.Command:
    """The command with its own options alone, and without the exit codes, which stand in when-it-fails.md."""
    own = copy(command)
    own.params = [option for option in command.params if not _is_shared(option)]
    own.add_help_option = False
    own.help = re.sub(r"\s*\x08\s*Exit codes:.*", "", own.help or "", flags=re.DOTALL)
    return own


def _shared(command: click.Command) -> str:
    """Which shared options it has: a link to the page that explains them."""
    names = [f"`{SHARED[str(option.name)][0].split()[0]}`" for option in command.params if _is_shared(option)]
    return f"\n\nAlso [{', '.join(names)}](README.md#shared-options)." if names else ""


def _is_shared(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Option) and parameter.name in SHARED


def _context(command: click.Command, name: str, parent: click.Context) -> click.Context:
    context = click.Context(command, info_name=name, parent=parent, max_content_width=100)
    context.terminal_width = 100
    return context


def index_page() -> str:
    """The list of all commands, and the options that many of them have."""
    names = ",\n".join(f"[`{name}`]({name}.md)" for name in COMMANDS)
    shared = "\n".join(f"* `{name}`: {text}" for name, text in SHARED.values())
    return (
        f"{NOTE}# Commands\n\n{names}.\n\n`kchain --help` says in a line what each does.\n\n"
        "## Shared options\n\n"
        "`kchain -C DIR COMMAND` works as if started in DIR. Commands that have them share:\n\n"
        f"{shared}\n\nExit codes: [when it fails](../when-it-fails.md#exit-codes).\n"
    )


def phase_files_page() -> str:
    """Every key of every table: type, default, meaning."""
    parts = [
        f"{NOTE}# Keys of kchain.toml and phases/*.toml\n",
        "Unknown keys are refused. A **bold** key must be given; `key = value` shows a default. "
        "One without type and default is a string. "
        'A duration is a number and a unit: `"9h"`, `"90m"`.\n',
    ]
    for heading, (text, table) in TABLES.items():
        parts.append(f"## {heading}\n" + (f"\n{text}\n" if text else ""))
        parts += [_row(name, field) for name, field in table.model_fields.items() if field.description]
        parts.append("")
    return "\n".join(parts)


def advice_page() -> str:
    """What kchain makes of a failed run: the table it looks things up in."""
    rows = "\n".join(f"| {advice.meaning} | {advice.change} |" for _, advice in TABLE)
    return (
        f"{NOTE}# What a failed run probably means\n\n"
        "The first row that matches the log counts, after what the notebook itself said when it stopped.\n\n"
        f"| probable cause | what to change |\n| --- | --- |\n{rows}\n"
    )


def _row(name: str, field: FieldInfo) -> str:
    kind = _type(field.annotation) if not _is_duration(field.metadata) else DURATION
    kind += ', "auto"' if values.AUTO in field.metadata else ""
    value = field.get_default(call_default_factory=True)
    told = "" if kind == "string" else f" ({kind})"
    if field.is_required():
        return f"* **`{name}`**{told}: {field.description}"
    if value in (None, (), {}) or isinstance(value, BaseModel):
        return f"* `{name}`{told}: {field.description}"
    # A default shows its type, but not what else may be chosen.
    choices = f" ({kind})" if kind.count('"') > 2 or values.AUTO in field.metadata else ""
    return f"* `{name} = {_toml(f'{value // 3600}h' if kind == DURATION else value)}`{choices}: {field.description}"


def _is_duration(metadata: Collection[Any]) -> bool:
    return values.DURATION in metadata


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value)


def _type(annotation: Any) -> str:
    """A type as a writer of TOML knows it."""
    names = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): ""}
    if annotation in names:
        return names[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "table"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return DURATION if _is_duration(annotation.__metadata__) else _type(inner[0])
    if origin is Literal:
        return ", ".join(f'"{word}"' for word in inner)
    if origin is tuple:
        kind = _type(inner[0])
        return f"list of {kind}{'s' if kind in ('string', 'table') else ''}"
    if origin is dict:
        return "table"
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
