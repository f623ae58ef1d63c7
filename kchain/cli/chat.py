"""`kchain chat`."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import TypeAdapter, ValidationError

from kchain.cli.common import (
    base_option,
    console,
    fail,
    json_option,
    load_project,
    precision_option,
    print_json,
    target_of,
    target_option,
)
from kchain.errors import InputError, need
from kchain.phases import Style
from kchain.uses.sampling import Styles

if TYPE_CHECKING:
    from kchain.uses.conversation import Conversation
    from kchain.uses.subject import TrainedPhase

# What each style changes about the answers; read from the project's folder where no other file is named.
STYLES = Path("styles.toml")
_TABLES = TypeAdapter(dict[str, Style])


@click.command()
@click.argument("phase", required=False)
@click.option("--prompt", metavar="TEXT", help="Ask this and print the answer; - reads stdin.")
@click.option("--system", metavar="TEXT", help="System prompt; empty: none.  [default: the phase's]")
@click.option("--style", metavar="TOKEN", help="Style token for every prompt.")
@click.option(
    "--styles",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings of each style.  [default: styles.toml of the project]",
)
@click.option("--max-tokens", type=click.IntRange(1), help="Tokens per answer.  [default: 512]")
@click.option("--temperature", type=click.FloatRange(0, 10), help="0: greedy.  [default: 0]")
@click.option("--top-p", type=click.FloatRange(0, 1, min_open=True), help="Nucleus sampling.  [default: 1]")
@click.option(
    "--repetition-penalty", type=click.FloatRange(0, 10, min_open=True), help="Above 1: repeat less.  [default: 1]"
)
@click.option("--seed", type=click.IntRange(0), help="Seed of the sampling.  [default: 0]")
@precision_option
@base_option
@target_option
@json_option
def chat(
    phase: str | None,
    prompt: str | None,
    system: str | None,
    style: str | None,
    styles: Path | None,
    precision: str,
    base: Path | None,
    target: str | None,
    as_json: bool,
    **typed: Any,
) -> None:
    """Chat with PHASE (default: the last one), or ask it one --prompt.

    In a conversation, /new starts over, /style TOKEN changes the style; an empty line or Ctrl-D ends it.

    Needs the base model on this machine; without it: docs/use-the-model.md.

    Needs: pip install "kchain[train]"
    """
    if as_json and prompt is None:
        raise click.UsageError("--json belongs to --prompt")
    chain = load_project()
    from kchain.orchestrator.finished import choose_phase
    from kchain.publish.content import read_subject

    need("train", "torch", "transformers", "safetensors", "peft")
    tables = read_styles(chain.root, styles)
    subject = read_subject(chain, choose_phase(chain, phase), target_of(chain, target), base)
    from kchain.uses.conversation import Conversation
    from kchain.uses.speaker import load_chain

    talk = Conversation(load_chain(subject, precision), subject, system, style, tables, typed)
    if precision != "nf4":
        _warn(talk, subject)
    if prompt is not None:
        _ask(talk, sys.stdin.read() if prompt == "-" else prompt, as_json)
    else:
        _talk(talk)


def _ask(talk: Conversation, question: str, as_json: bool) -> None:
    if as_json:
        print_json(asdict(talk.ask(question)))
        return
    answer = talk.ask(question, lambda text: click.echo(text, nl=False))
    click.echo()
    if not answer.ended:
        click.echo(f"(cut after {answer.tokens} tokens: --max-tokens)", err=True)


def _talk(talk: Conversation) -> None:
    while question := _read():
        command, _, argument = question.partition(" ")
        try:
            if command == "/new":
                talk.begin()
            elif command == "/style":
                talk.choose_style(argument.strip())
            else:
                _ask(talk, question, as_json=False)
        except InputError as error:
            fail(error.message, error.hint)


def _read() -> str:
    """One line from whoever types or from a pipe; "" at its end."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().strip()
    try:
        return console.input("[bold]> [/bold]").strip()
    except EOFError:
        return ""


def _warn(talk: Conversation, subject: TrainedPhase) -> None:
    """Warn where the loaded model is not what the session trained: another base model of the same size, perhaps."""
    from kchain.uses.speaker import compare_probe

    probe = compare_probe(talk.speaker, subject.last.result)
    quantized = subject.quantization != "none"
    if probe is not None and not probe.agrees and not quantized:
        click.echo(
            f"warning: the session that trained {subject.phase} recorded logits {probe.difference:.2f} away; "
            f"is {subject.base} the model {subject.base_model}?",
            err=True,
        )


def read_styles(root: Path, given: Path | None) -> Styles:
    """The styles of a file by their tokens; none where no file is named and the project has none.

    Raises:
        InputError: the file cannot be read, or says something that is not a style.
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
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            f"keys of a style: {', '.join(Style.model_fields)}",
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as TOML: {error}", "see docs/use-the-model.md") from None
