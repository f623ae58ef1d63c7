"""From the tables of files to phases: what a file leaves out is taken from the chain.

A phase that trains nothing takes what its file leaves out from the phase whose result it uses.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kchain.phases.chain import WrittenPhase, choose_precision
from kchain.phases.machines import ACCELERATORS, known_accelerator, not_on_kaggle
from kchain.phases.schema import ChainFile, PhaseFile, TokensTable
from kchain.phases.uses import USES, AnyUseFile, Evaluating, Exporting, Generation
from kchain.phases.values import describe

CHAIN_FILE = "kchain.toml"
PHASE_FOLDER = "phases"
# Why an export is what it is.
ADDED = "updates are added in fp32, the sums rounded once; no GPU is needed"

Table = TypeVar("Table", bound=BaseModel)


def read_phase(path: Path, label: str, problems: list[str]) -> PhaseFile | AnyUseFile | None:
    """A phase's file, by its kind; None, and why, where it is wrong."""
    try:
        kind = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("kind", "train")
    except (OSError, ValueError, RecursionError):
        kind = "train"  # what cannot be read is told when it is read as a table
    table: type[PhaseFile | AnyUseFile] | None = PhaseFile if kind == "train" else USES.get(str(kind))
    if table is None:
        problems.append(f"{label}: kind: one of train, {', '.join(USES)}")
        return None
    return read_table(path, label, table, problems)


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


def resolve(
    chain: ChainFile, files: Mapping[str, PhaseFile | AnyUseFile], problems: list[str]
) -> tuple[WrittenPhase, ...]:
    """Every phase but those with problems, parents before children."""
    trained = {name: table for name, table in files.items() if isinstance(table, PhaseFile)}
    found: dict[str, WrittenPhase] = {}
    for name in _in_order(files):
        table, label = files[name], f"{PHASE_FOLDER}/{name}.toml"
        if isinstance(table, PhaseFile):
            phase = _train_phase(name, label, table, chain, _tokens(name, trained), problems)
        elif phase := found.get(table.after):
            phase = _use_phase(name, table, phase, label, problems)
        if phase is not None:
            found[name] = phase
    for phase in found.values():
        if chain.chain.target == "kaggle" and (problem := not_on_kaggle(phase.accelerator)):
            own = files[phase.name].accelerator
            problems.append(f"{phase.file if own else CHAIN_FILE}: accelerator: {problem}")
    return tuple(found.values())


def _in_order(files: Mapping[str, PhaseFile | AnyUseFile]) -> list[str]:
    """Names with parents before children, otherwise by name."""

    def depth(name: str) -> int:
        parent = files[name].after
        return 0 if parent is None else depth(parent) + 1

    return sorted(files, key=lambda name: (depth(name), name))


def _train_phase(
    name: str, label: str, table: PhaseFile, chain: ChainFile, tokens: TokensTable, problems: list[str]
) -> WrittenPhase | None:
    training = _over(chain.training, table.training)
    place = f"{label}: accelerator" if table.accelerator else f"{CHAIN_FILE}: accelerator"
    try:
        accelerator = known_accelerator(table.accelerator or chain.chain.accelerator)
    except ValueError as error:
        problems.append(f"{place}: {error}")
        return None
    try:
        precision, reason = choose_precision(training.precision, accelerator)
    except ValueError as error:
        own = table.training is not None and "precision" in table.training.model_fields_set
        problems.append(f"{label if own else CHAIN_FILE}: training.precision: {error}")
        return None
    internet = chain.chain.internet if table.internet is None else table.internet
    if not internet:
        problems += [
            f"{label}: data.sources.{index}: {source.name!r} needs internet, which is off; "
            "set internet = true or attach the data as a Kaggle data set"
            for index, source in enumerate(table.data.sources)
            if source.kind.needs_internet
        ]
    return WrittenPhase(
        name=name,
        title=table.title,
        description=table.description,
        after=table.after,
        adapter=table.adapter,
        accelerator=accelerator,
        internet=internet,
        session_timeout=table.session_timeout or chain.chain.session_timeout,
        data=table.data,
        tokens=tokens,
        lora=_over(chain.lora, table.lora),
        training=training,
        precision=precision,
        precision_reason=reason,
        samples=_over(chain.samples, table.samples),
        gates=_over(chain.gates, table.gates),
        file=Path(label),
    )


def _over(chain: Table, phase: Table | None) -> Table:
    """The chain's table with what the phase says in its place."""
    if phase is None:
        return chain
    return chain.model_copy(update={key: getattr(phase, key) for key in phase.model_fields_set})


def _tokens(name: str, phase_files: Mapping[str, PhaseFile]) -> TokensTable:
    """The tokens of a phase's adapter; what a continued adapter added is there when it is trained on."""
    table = phase_files[name]
    if table.adapter == "continue" and table.after is not None:
        return TokensTable(trained=_tokens(table.after, phase_files).all)
    return table.tokens


def _use_phase(name: str, table: AnyUseFile, parent: WrittenPhase, label: str, problems: list[str]) -> WrittenPhase:
    """The phase of such a file; what is wrong goes into `problems`.

    Args:
        parent: the phase named by `after`.
        label: its file, as problems name it.
    """
    use = table.use
    accelerator, precision, reason = parent.accelerator, parent.precision, parent.precision_reason
    try:
        # An export adds up files, for which no GPU hours need be spent.
        machine = ACCELERATORS["cpu"] if isinstance(use, Exporting) else parent.accelerator
        accelerator = known_accelerator(table.accelerator) if table.accelerator else machine
        wanted = "fp32" if isinstance(use, Exporting) else parent.training.precision
        precision, reason = choose_precision(wanted, accelerator)
    except ValueError as error:
        problems.append(f"{label}: accelerator: {error}")
    if isinstance(use, Evaluating):
        problems += [f"{label}: {problem}" for problem in _evaluation_problems(use, parent)]
    return replace(
        parent,
        name=name,
        title=table.title,
        description=table.description,
        after=parent.name,
        adapter="merge",
        accelerator=accelerator,
        internet=parent.internet if table.internet is None else table.internet,
        session_timeout=table.session_timeout or parent.session_timeout,
        data=parent.data.model_copy(update={"sources": ()}),
        tokens=TokensTable(),
        precision=precision,
        precision_reason=ADDED if isinstance(use, Exporting) else reason,
        gates=table.gates,
        file=Path(label),
        use=use,
    )


def parent_problems(files: Mapping[str, PhaseFile | AnyUseFile]) -> list[str]:
    """`after` of a phase that names one without an adapter of its own, as `NAME: problem`."""
    return [
        f"{name}.toml: after: {table.after} trains nothing ({files[table.after].kind}); name a phase that does"
        for name, table in files.items()
        if table.after is not None and table.after in files and files[table.after].kind in USES
    ]


def prompt_problems(phases: Iterable[WrittenPhase], files: Mapping[str, str]) -> list[str]:
    """The first row without a prompt in each file of prompts.

    Args:
        files: JSON lines of the project's files, by their path.
    """
    problems = []
    for phase in phases:
        name = phase.use.file if isinstance(phase.use, Generation) else None
        for number, line in enumerate(files.get(name or "", "").split("\n")[:-1], 1):
            prompt = json.loads(line).get("prompt")
            if not isinstance(prompt, str) or not prompt.strip():
                place = f"{phase.file}: generate.file: {name!r} row {number}"
                problems.append(f'{place}: no prompt; write {{"prompt": "..."}}')
                break
    return problems


def _evaluation_problems(use: Evaluating, parent: WrittenPhase) -> list[str]:
    """Why the parent's validation set does not hold questions."""
    if use.file is not None:
        return []
    if parent.data.recipe == "text":
        return [f"evaluate.file: missing; {parent.name} learns plain text, which holds no questions"]
    if use.check == "regex":
        return ["evaluate.file: missing; the answers that a phase learns are not regular expressions"]
    if not parent.data.validation:
        return [f"evaluate.file: missing; {parent.name} has no validation set (its data.validation is 0)"]
    return []
