"""`kchain data`: check examples before anything is trained on them, and make examples of collected interactions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.text import Text

from kchain.cli.common import (
    console,
    json_option,
    load_project,
    new_table,
    print_json,
    print_table,
    say,
    target_of,
    target_option,
)
from kchain.errors import InputError

if TYPE_CHECKING:
    from kchain.data import Checked
    from kchain.data.check import Measure
    from kchain.phases import Chain

EXISTING = click.Path(path_type=Path, exists=True)
# Of a file that belongs to no phase.
MAX_LENGTH = 1024
# Rejected rows that are printed.
_REJECTED = 3


@click.group()
def data() -> None:
    """Check examples before training; prepare collected interactions."""


@data.command()
@click.argument("what", nargs=-1, metavar="[PHASE|FILE]...")
@click.option("--with", "places", multiple=True, metavar="NAME=PATH", help="Local copy of source NAME.")
@click.option(
    "--download",
    is_flag=True,
    help="Download missing data sets, once, into .kchain/copies/ (Hugging Face's: its own cache, needs kchain[train]).",
)
@target_option
@click.option("--field", "fields", multiple=True, metavar="FIELD=COLUMN", help="Column of FILE for a recipe field.")
@click.option("--validation", type=EXISTING, help="Validation file that belongs to one FILE.")
@click.option("--tokenizer", type=EXISTING, metavar="DIR", help="Model folder, to count tokens.")
@click.option(
    "--html", "page", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with examples and histograms."
)
@click.option("--rejected", type=click.Path(path_type=Path, dir_okay=False), help="Write the rejected rows, as JSONL.")
@json_option
def check(
    what: tuple[str, ...],
    places: tuple[str, ...],
    download: bool,
    target: str | None,
    fields: tuple[str, ...],
    validation: Path | None,
    tokenizer: Path | None,
    page: Path | None,
    rejected: Path | None,
    as_json: bool,
) -> None:
    """Check the examples of phases (default: all of them) or of files.

    Counts and shows every fault of [data.quality], as each notebook does before it trains. Exit code 1 if a fault is
    more frequent than its threshold.
    """
    found = _check_files(what, _pairs(fields), validation, tokenizer)
    if len(found) < len(what) or not what:
        found += _check_phases(what, _pairs(places), download, target, tokenizer)
    if page is not None:
        from kchain.data.check import write_page

        write_page(page, found)
    if rejected is not None:
        from kchain.runtime.files import write_text

        lines = (json.dumps(row, ensure_ascii=False) + "\n" for one in found for row in one.rejected)
        write_text(rejected, "".join(lines))
    if as_json:
        print_json([one.as_dict() for one in found])
    else:
        for one in found:
            _print_checked(one)
    if any(one.problems for one in found):
        raise click.exceptions.Exit(1)


def _print_checked(one: Checked) -> None:
    """Sources, faults, lengths, and examples of what there is too much of."""
    from kchain.runtime.data import COUNTS
    from kchain.runtime.quality import WORDS

    found = one.found
    verdict = Text("not good enough", "red") if one.problems else Text("good enough", "green")
    console.print(Text(one.name, "bold"), verdict, soft_wrap=True)
    console.print(f"{found['train']:,} training examples, {found['validation']:,} for validation", soft_wrap=True)
    if one.absent:
        absent = ", ".join(one.absent)
        console.print(f"not on this machine, so not checked: {absent} (--with NAME=PATH)", markup=False)
    sources = new_table("source", *(f">{count}" for count in COUNTS))
    for source in found["sources"]:
        sources.add_row(Text(source["name"]), *(f"{source[count]:,}" for count in COUNTS))
    print_table(console, sources)
    for source in found["sources"]:
        if source["error"]:
            console.print(f"source {source['name']} is skipped: {source['error']}", markup=False, soft_wrap=True)
    faults = new_table("fault", ">count", ">of", ">share", ">allowed", "meaning")
    for name, fault in found["faults"].items():
        most = one.most.get(name, 1.0)
        faults.add_row(
            Text(name, "red" if fault["share"] > most else ""),
            f"{fault['count']:,}",
            f"{fault['of']:,}",
            f"{fault['share']:.2%}",
            f"{most:.0%}",
            WORDS[name],
        )
    print_table(console, faults)
    for what, lengths in (("examples", found["lengths"]), ("answers", found["answers"])):
        cap = f", cut at {lengths['cap']:,}" if lengths["cap"] else ""
        told = (
            f"median {lengths['median']:,}, 95 % up to {lengths['p95']:,}, at most {lengths['max']:,} {lengths['unit']}"
        )
        console.print(f"{what}: {told}{cap}", soft_wrap=True)
    for row in one.rejected[:_REJECTED]:
        told = f"rejected: {row['file']} line {row['line']}: {row['reason']}"
        console.print(told, markup=False, soft_wrap=True)
    if len(one.rejected) > _REJECTED:
        console.print(f"and {len(one.rejected) - _REJECTED} more: --rejected FILE", soft_wrap=True)
    for problem in one.problems:
        console.print(Text(problem, "red"), soft_wrap=True)
    for name, fault in found["faults"].items():
        for shown in fault["shown"] if fault["share"] > one.most.get(name, 1.0) else ():
            prompt, answer = (" ".join(str(shown[part]).split())[:60] for part in ("prompt", "answer"))
            console.print(Text(f"  {name}: {prompt} -> {answer}"), soft_wrap=True)
    console.print()


def _check_files(
    what: Sequence[str], fields: dict[str, str], validation: Path | None, tokenizer: Path | None
) -> list[Checked]:
    from kchain.data import check_file

    files = [Path(word) for word in what if Path(word).is_file()]
    if validation is not None and len(files) != 1:
        raise InputError("--validation goes with one FILE")
    return [check_file(path, fields, validation, _measure(tokenizer, None, "")) for path in files]


def _check_phases(
    what: Sequence[str], places: dict[str, str], download: bool, target: str | None, tokenizer: Path | None
) -> list[Checked]:
    """The phases among the words; all, where there are no words."""
    from kchain.data import check_phase

    chain = load_project()
    known = [phase.name for phase in chain.trained]
    phases = [word for word in what if not Path(word).is_file()]
    for word in phases:
        if word not in known:
            raise InputError(f"{word!r} is neither a file nor a phase", f"phases of this chain: {', '.join(known)}")
    copies = {name: Path(path) for name, path in places.items()}
    return [
        check_phase(
            chain,
            name,
            {**(_fetched(chain, name, target, set(copies)) if download else {}), **copies},
            download,
            _measure(tokenizer, chain, name),
        )
        for name in phases or known
    ]


def _fetched(chain: Chain, phase: str, name: str | None, here: set[str]) -> dict[str, Path]:
    """Copies of a phase's data sets of the target, by source; those of this project's own server are read in place."""
    from kchain.client.client import connect
    from kchain.client.pull import copy_dataset
    from kchain.client.target import LOCAL

    target = target_of(chain, name)
    of_phase = chain.phase(phase).data.sources
    sources = [source for source in of_phase if source.kind.name == "dataset" and source.name not in here]
    if target.name == LOCAL or not sources:
        return {}
    client, found = connect(target), dict[str, Path]()

    def tell(text: str) -> None:
        click.echo(text, err=True)

    for source in sources:
        try:
            found[source.name] = copy_dataset(client, source.place, source.file, chain.root, tell)
        except InputError as error:
            if not source.optional:
                raise
            tell(f"{source.name} (optional): {error.message}")
    return found


def _measure(tokenizer: Path | None, chain: Chain | None, phase: str) -> Measure | None:
    if tokenizer is None:
        return None
    from kchain.data.check import measure

    if chain is None:
        return measure(tokenizer, MAX_LENGTH, None)
    return measure(tokenizer, chain.phase(phase).training.max_length, chain.model.eos_token)


def _pairs(words: Sequence[str]) -> dict[str, str]:
    found = dict(word.split("=", 1) for word in words if "=" in word)
    for word in words:
        if "=" not in word or not all(word.split("=", 1)):
            raise InputError(
                f"{word!r} is not NAME=VALUE", "write it as in prompt=question, or shell=copies/shell.jsonl"
            )
    return found


@data.command()
@click.argument("source", type=EXISTING, metavar="IN")
@click.argument("target", type=click.Path(path_type=Path, file_okay=False), metavar="OUT_DIR")
@click.option("--task", multiple=True, metavar="PATH", help="The question.  [default: task.description]")
@click.option("--role", multiple=True, metavar="PATH", help="The agent's role.  [default: agent.role]")
@click.option("--answer", multiple=True, metavar="PATH", help="The answer.  [default: execution.output]")
@click.option(
    "--success",
    multiple=True,
    metavar="PATH",
    help="Whether it succeeded.  [default: execution.success, execution.status, success, status]",
)
@click.option("--system", type=EXISTING, metavar="FILE", help="TOML or JSON table: role = system prompt.")
@click.option(
    "--validation", type=click.FloatRange(0, 0.9), default=0.1, show_default=True, help="Share of the validation set."
)
@click.option("--test", type=click.FloatRange(0, 0.9), default=0.1, show_default=True, help="Share of the test set.")
@click.option("--seed", type=int, default=42, show_default=True, help="Seed of the split.")
@click.option("--replace", is_flag=True, help="Overwrite an earlier run's files.")
@json_option
def prepare(
    source: Path,
    target: Path,
    task: tuple[str, ...],
    role: tuple[str, ...],
    answer: tuple[str, ...],
    success: tuple[str, ...],
    system: Path | None,
    validation: float,
    test: float,
    seed: int,
    replace: bool,
    as_json: bool,
) -> None:
    """Turn collected interactions into train, validation and test.jsonl, and metadata.json, in OUT_DIR.

    IN is a JSON array, JSON lines, or a folder of them. PATH is a field of a record, with dots into nested objects;
    repeat an option to name alternatives. Rejected records go to rejected.jsonl with the reason.
    """
    from kchain.data import Preparation
    from kchain.data import prepare as write
    from kchain.data.prepare import read_prompts

    if validation + test >= 1:
        raise InputError("--validation and --test leave nothing to train on")
    given = {"task": task, "role": role, "answer": answer, "success": success}
    settings = Preparation(
        **{name: paths for name, paths in given.items() if paths},
        prompts=read_prompts(system) if system else {},
        validation=validation,
        test=test,
        seed=seed,
    )
    found = write(source, target, settings, replace).metadata
    if as_json:
        print_json(found)
        return
    say(f"{target}: " + ", ".join(f"{count} {part}" for part, count in found["examples"].items()))
    for name, told in found["roles"].items():
        say(f"  {name or 'no role'}: {told['examples']} examples: {told['system_prompt']}")
    for reason, count in found["rejected"]["reasons"].items():
        say(f"  {count} left out: {reason}")
