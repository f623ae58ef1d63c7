"""From files to a Chain: read, validate each file whole, link.

All errors of all files are told at once, each with its file, its key and what is allowed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from kchain.errors import InputError
from kchain.phases.accelerators import known_accelerator, not_on_kaggle
from kchain.phases.chain import Chain, Phase, choose_precision
from kchain.phases.describe import describe
from kchain.phases.models import Shape, model_shape
from kchain.phases.project_files import project_files
from kchain.phases.schema import ChainFile, PhaseFile, Tokens
from kchain.phases.settling import defaults, settle
from kchain.phases.uses import USES, UseFile
from kchain.phases.using import following, parent_problems, use_phase
from kchain.phases.values import NAME, NAME_LENGTH

CHAIN_FILE = "kchain.toml"
PHASE_FOLDER = "phases"

Table = TypeVar("Table", bound=BaseModel)


def find_root(start: Path) -> Path:
    """The nearest folder at or above `start` that holds `kchain.toml`.

    Raises:
        InputError: there is none.
    """
    for folder in (start, *start.parents):
        if (folder / CHAIN_FILE).is_file():
            return folder
    raise InputError(f"no {CHAIN_FILE} in {start} or above it", "make a project with: kchain init my-chain")


def load_chain(root: Path) -> Chain:
    """Read and link the project in `root`.

    Raises:
        InputError: one text with every problem of every file.
    """
    problems: list[str] = []
    chain_file = _read(root / CHAIN_FILE, CHAIN_FILE, ChainFile, problems)
    if chain_file is not None and not _is_target(target := chain_file.chain.target):
        problems.append(f"{CHAIN_FILE}: chain.target: kaggle, local, or the URL of a kchain server; found {target!r}")
    files = sorted((root / PHASE_FOLDER).glob("*.toml"))
    if not files:
        problems.append(f"{PHASE_FOLDER}/: no phase file; a chain has at least one, {PHASE_FOLDER}/phase1.toml")
    problems += [problem for path in files for problem in _name_problems(path)]
    tables = {path.stem: _read_phase(path, problems) for path in files}
    _stop_on(problems)
    assert chain_file is not None
    phase_files = {name: table for name, table in tables.items() if table is not None}
    problems += _link_problems(phase_files)
    _stop_on(problems)
    phases = _resolve_all(chain_file, phase_files, problems)
    files_read = project_files(root, phases, problems)
    problems += _chain_problems(phases)
    problems += _target_problems(chain_file.model.source, phases)
    _stop_on(problems)
    phases = _settled(phases, model_shape(chain_file.model.source), files_read)
    table = chain_file.chain
    return Chain(root, table.name, table.owner, table.target, table.seed, chain_file.model, phases, files_read)


def _stop_on(problems: Iterable[str]) -> None:
    # One wrong value of the chain is met by every phase, and told once.
    found = list(dict.fromkeys(problems))
    if found:
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        raise InputError(f"{count} in this project:\n" + "\n".join(f"  {problem}" for problem in found))


def _is_target(target: str) -> bool:
    """Whether it can be one; what a URL must be in detail is told when the target is used."""
    return target in ("kaggle", "local") or target.startswith(("http://", "https://"))


def _name_problems(path: Path) -> list[str]:
    """A phase's name is typed, and becomes part of folders and of cell ids."""
    if re.fullmatch(NAME, path.stem) and len(path.stem) <= NAME_LENGTH:
        return []
    return [
        f"{PHASE_FOLDER}/{path.name}: a phase is named by its file: small letters, digits, - and _, "
        f"{NAME_LENGTH} at most; rename it"
    ]


def _read_phase(path: Path, problems: list[str]) -> PhaseFile | UseFile | None:
    label, table = f"{PHASE_FOLDER}/{path.name}", _phase_table(path)
    if table is None:
        problems.append(f"{label}: kind: one of train, {', '.join(USES)}")
        return None
    return _read(path, label, table, problems)


def _phase_table(path: Path) -> type[PhaseFile | UseFile] | None:
    """What a phase's file must be, by its kind; None for an unknown kind. What cannot be read is told later."""
    try:
        kind = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("kind", "train")
    except (OSError, ValueError, RecursionError):
        kind = "train"
    return PhaseFile if kind == "train" else USES.get(str(kind))


def _read(path: Path, label: str, table: type[Table], problems: list[str]) -> Table | None:
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


def _link_problems(files: Mapping[str, PhaseFile | UseFile]) -> list[str]:
    problems = [f"{PHASE_FOLDER}/{problem}" for problem in parent_problems(files)]
    for name, table in files.items():
        label = f"{PHASE_FOLDER}/{name}.toml"
        if table.after is not None and table.after not in files:
            problems.append(f"{label}: after: there is no phase {table.after!r}; phases: {', '.join(files)}")
        if isinstance(table, PhaseFile):
            problems += [f"{label}: {problem}" for problem in _continue_problems(table)]
    if problems:
        return problems
    for name in files:
        seen = [name]
        while (parent := files[seen[-1]].after) is not None:
            if parent in seen:
                if parent == name:
                    problems.append(f"{PHASE_FOLDER}/{name}.toml: after: a circle: {' -> '.join([*seen, parent])}")
                break
            seen.append(parent)
    return problems


def _continue_problems(table: PhaseFile) -> list[str]:
    """Why the adapter of another phase cannot be trained on."""
    if table.adapter == "merge":
        return []
    problems = []
    if table.after is None:
        problems.append('adapter: "continue" trains the adapter of the phase named by `after` on; there is none')
    if table.tokens.all:
        problems.append('tokens: with adapter = "continue" they are those of the adapter trained on; leave them out')
    return problems


def _in_order(files: Mapping[str, PhaseFile | UseFile]) -> list[str]:
    """Names with parents before children, otherwise by name."""

    def depth(name: str) -> int:
        parent = files[name].after
        return 0 if parent is None else depth(parent) + 1

    return sorted(files, key=lambda name: (depth(name), name))


def _over(chain: Table, phase: Table | None) -> Table:
    """The chain's table with what the phase says in its place."""
    if phase is None:
        return chain
    return chain.model_copy(update={key: getattr(phase, key) for key in phase.model_fields_set})


def _tokens(name: str, phase_files: Mapping[str, PhaseFile]) -> Tokens:
    """The tokens of a phase's adapter; what a continued adapter added is there when it is trained on."""
    table = phase_files[name]
    if table.adapter == "continue" and table.after is not None:
        return Tokens(trained=_tokens(table.after, phase_files).all)
    return table.tokens


def _resolve_all(chain: ChainFile, files: Mapping[str, PhaseFile | UseFile], problems: list[str]) -> tuple[Phase, ...]:
    """Every phase but those with problems, parents before children."""
    trained = {name: table for name, table in files.items() if isinstance(table, PhaseFile)}
    found: dict[str, Phase] = {}
    for name in _in_order(files):
        table, label = files[name], f"{PHASE_FOLDER}/{name}.toml"
        if isinstance(table, PhaseFile):
            phase = _resolve(name, label, table, chain, _tokens(name, trained), problems)
        elif phase := found.get(table.after):
            phase = use_phase(name, table, phase, label, problems)
        if phase is not None:
            found[name] = phase
    for phase in found.values():
        if chain.chain.target == "kaggle" and (problem := not_on_kaggle(phase.accelerator)):
            own = files[phase.name].accelerator
            problems.append(f"{phase.file if own else CHAIN_FILE}: accelerator: {problem}")
    return tuple(found.values())


def _settled(phases: tuple[Phase, ...], shape: Shape | None, files: Mapping[str, str]) -> tuple[Phase, ...]:
    """The phases with every "auto" chosen."""
    done: dict[str, Phase] = {}
    for phase in phases:
        parent = done[phase.after] if phase.use is not None and phase.after is not None else None
        done[phase.name] = settle(phase, shape, files) if parent is None else following(phase, parent)
    return tuple(done.values())


def _resolve(
    name: str, label: str, table: PhaseFile, chain: ChainFile, tokens: Tokens, problems: list[str]
) -> Phase | None:
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
            if source.kind == "huggingface"
        ]
    return Phase(
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
        wanted=training,
        training=defaults(training),
        choices=(),
        precision=precision,
        precision_reason=reason,
        gates=_over(chain.gates, table.gates),
        file=Path(label),
    )


def _target_problems(source: str, phases: tuple[Phase, ...]) -> list[str]:
    """Adapter targets that a base model of known shape does not have."""
    shape = model_shape(source)
    if shape is None or not phases or shape.chosen(phases[0].lora.targets) is not None:
        return []
    unknown = [target for target in phases[0].lora.targets if target not in shape.linear]
    return [f"{CHAIN_FILE}: lora.targets: {source} has no {', '.join(unknown)}; it has {', '.join(shape.linear)}"]


def _chain_problems(phases: tuple[Phase, ...]) -> list[str]:
    """What can only be seen with all phases in view: one LoRA configuration, one address per phase."""
    problems = []
    for phase in phases[1:]:
        first = phases[0]
        different = [
            f"{key} = {getattr(phase.lora, key)!r} here, {getattr(first.lora, key)!r} in {first.name}"
            for key in type(first.lora).model_fields
            if getattr(phase.lora, key) != getattr(first.lora, key)
        ]
        if different:
            problems.append(f"{phase.file}: lora: one chain has one LoRA configuration; {'; '.join(different)}")
    problems += _token_problems(phases)
    by_slug: dict[str, Phase] = {}
    for phase in phases:
        if len(phase.slug) < 5:
            problems.append(f"{phase.file}: title: Kaggle makes the address {phase.slug!r} from it; 5 letters or more")
        if phase.slug in by_slug:
            other = by_slug[phase.slug].file
            problems.append(f"{phase.file}: title: same kernel address {phase.slug!r} as {other}; change one title")
        by_slug.setdefault(phase.slug, phase)
    return problems


def _token_problems(phases: tuple[Phase, ...]) -> list[str]:
    """Tokens that a phase adds although one that it builds on did so before."""
    by_name = {phase.name: phase for phase in phases}
    problems = []
    for phase in phases:
        before = phase
        while before.after is not None:
            before = by_name[before.after]
            problems += [
                f"{phase.file}: tokens.added: {before.name} adds {token!r} already; to train it on: tokens.trained"
                for token in phase.tokens.added
                if token in before.tokens.added
            ]
    return problems
