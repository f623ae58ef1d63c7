"""From files to a Chain: read, validate each file whole, link, settle.

All errors of all files are told at once, each with its file, its key and what is allowed. The project's own files of
examples are read here too, row by row: they travel inside the notebook, one JSON object a line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from kchain.errors import InputError
from kchain.phases.chain import Chain, WrittenPhase
from kchain.phases.models import model_shape
from kchain.phases.resolve import (
    CHAIN_FILE,
    PHASE_FOLDER,
    parent_problems,
    prompt_problems,
    read_phase,
    read_table,
    resolve,
)
from kchain.phases.schema import ChainFile, PhaseFile
from kchain.phases.settle import settle
from kchain.phases.uses import AnyUseFile
from kchain.phases.values import NAME, NAME_LENGTH
from kchain.runtime.failure import Stop
from kchain.runtime.readers import READERS, Broken, kind, rows

# Kaggle caps the source of a notebook at 1 MiB.
PROJECT_FILE_LIMIT = 256 * 1024
LINES = ".jsonl"


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
    chain_file = read_table(root / CHAIN_FILE, CHAIN_FILE, ChainFile, problems)
    target = chain_file.chain.target if chain_file is not None else "kaggle"
    # What a URL must be in detail is told when the target is used.
    if target not in ("kaggle", "local") and not target.startswith(("http://", "https://")):
        problems.append(f"{CHAIN_FILE}: chain.target: kaggle, local, or the URL of a kchain server; found {target!r}")
    files = sorted((root / PHASE_FOLDER).glob("*.toml"))
    if not files:
        problems.append(f"{PHASE_FOLDER}/: no phase file; a chain has at least one, {PHASE_FOLDER}/phase1.toml")
    problems += [
        f"{PHASE_FOLDER}/{path.name}: a phase is named by its file: small letters, digits, - and _, "
        f"{NAME_LENGTH} at most; rename it"
        for path in files
        if not re.fullmatch(NAME, path.stem) or len(path.stem) > NAME_LENGTH
    ]
    tables = {path.stem: read_phase(path, f"{PHASE_FOLDER}/{path.name}", problems) for path in files}
    _stop_on(problems)
    assert chain_file is not None
    phase_files = {name: table for name, table in tables.items() if table is not None}
    problems += _link_problems(phase_files)
    _stop_on(problems)
    written = resolve(chain_file, phase_files, problems)
    files_read = project_files(root, written, problems)
    problems += prompt_problems(written, files_read)
    problems += _chain_problems(written)
    problems += _target_problems(chain_file.model.source, written)
    _stop_on(problems)
    phases = settle(written, model_shape(chain_file.model.source), files_read)
    table = chain_file.chain
    return Chain(root, table.name, table.owner, table.target, table.seed, chain_file.model, phases, files_read)


def _stop_on(problems: Iterable[str]) -> None:
    # One wrong value of the chain is met by every phase, and told once.
    found = list(dict.fromkeys(problems))
    if found:
        count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
        raise InputError(f"{count} in this project:\n" + "\n".join(f"  {problem}" for problem in found))


def _link_problems(files: Mapping[str, PhaseFile | AnyUseFile]) -> list[str]:
    problems = [f"{PHASE_FOLDER}/{problem}" for problem in parent_problems(files)]
    for name, table in files.items():
        label = f"{PHASE_FOLDER}/{name}.toml"
        if table.after is not None and table.after not in files:
            problems.append(f"{label}: after: there is no phase {table.after!r}; phases: {', '.join(files)}")
        if isinstance(table, PhaseFile) and table.adapter == "continue":
            if table.after is None:
                problems.append(
                    f'{label}: adapter: "continue" trains the adapter of the phase named by `after`; name one, '
                    "or leave adapter out"
                )
            if table.tokens.all:
                problems.append(
                    f'{label}: tokens: with adapter = "continue" the tokens are those of the adapter that is '
                    "continued; leave them out"
                )
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


def _target_problems(source: str, phases: tuple[WrittenPhase, ...]) -> list[str]:
    """Adapter targets that a base model of known shape does not have."""
    shape = model_shape(source)
    if shape is None or not phases or shape.chosen(phases[0].lora.targets) is not None:
        return []
    unknown = [target for target in phases[0].lora.targets if target not in shape.linear]
    return [f"{CHAIN_FILE}: lora.targets: {source} has no {', '.join(unknown)}; it has {', '.join(shape.linear)}"]


def _chain_problems(phases: tuple[WrittenPhase, ...]) -> list[str]:
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
    by_slug: dict[str, WrittenPhase] = {}
    for phase in phases:
        if len(phase.slug) < 5:
            problems.append(f"{phase.file}: title: Kaggle makes the address {phase.slug!r} from it; 5 letters or more")
        if phase.slug in by_slug:
            other = by_slug[phase.slug].file
            problems.append(f"{phase.file}: title: same kernel address {phase.slug!r} as {other}; change one title")
        by_slug.setdefault(phase.slug, phase)
    return problems


def _token_problems(phases: tuple[WrittenPhase, ...]) -> list[str]:
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


def travels_as(name: str) -> str:
    """The name of a project's file inside the notebook, where it is JSON lines."""
    return name if name.endswith(LINES) else f"{name}{LINES}"


def project_files(root: Path, phases: Iterable[WrittenPhase], problems: list[str]) -> dict[str, str]:
    """JSON lines of every file that a phase names, by its path as written there; what is wrong goes into `problems`."""
    found: dict[str, str] = {}
    for phase in phases:
        for key, file in phase.files.items():
            if file in found:
                continue
            try:
                found[file] = _read_project_file(root, file)
            except ValueError as error:
                problems.append(f"{phase.file}: {key}: {error}")
    return found


def _read_project_file(root: Path, name: str) -> str:
    if not re.fullmatch(r"[\w./-]+", name):
        # The name goes into a magic of the notebook, where IPython would expand other characters.
        raise ValueError(f"{name!r}: letters, digits, '.', '_', '-' and '/' only; rename it")
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise ValueError(f"{name!r} is outside the project")
    if {"", ".", ".."} & set(name.split("/")):
        raise ValueError(f"{name!r}: write the path from the project's folder, without '.', '..' or a leading '/'")
    if kind(path) not in READERS:
        raise ValueError(f"{name!r} is not a file of examples: write them as one of {', '.join(READERS)}")
    if path.suffix == LINES:
        numbered = enumerate(_read_text(path, name).split("\n"), 1)
        lines = [_row(name, number, line) for number, line in numbered if line.strip()]
    else:
        lines = _other_rows(path, name)
    if not lines:
        raise ValueError(f"{name!r} has no example")
    text = "".join(f"{line}\n" for line in lines)
    _refuse_large(name, len(text.encode()))
    return text


def _other_rows(path: Path, name: str) -> list[str]:
    """Rows of JSON, CSV and Parquet files, as the notebook would read them."""
    found: list[str] = []
    try:
        # No format is so wordy that a smaller file could come of a larger one than this.
        _refuse_large(name, path.stat().st_size // 4)
        for number, row in rows(path):
            if isinstance(row, Broken):
                raise ValueError(f"{name!r} line {number}: {row.reason}")
            found.append(_row(name, number, json.dumps(row, default=str)))
    except OSError as error:
        raise ValueError(f"{name!r} cannot be read: {error.strerror or error}") from None
    except ModuleNotFoundError as error:
        raise ValueError(
            f'{name!r} needs {error.name}: pip install "kchain[train]", or write it as CSV or JSON'
        ) from None
    except Stop as stop:
        raise ValueError(f"{name!r}: {stop.reason}") from None
    return found


def _read_text(path: Path, name: str) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{name!r} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name!r} is not UTF-8 text") from None
    _refuse_large(name, len(text.encode()))
    return text


def _refuse_large(name: str, size: int) -> None:
    if size > PROJECT_FILE_LIMIT:
        raise ValueError(
            f"{name!r} is over {PROJECT_FILE_LIMIT // 1024} KiB, too large to travel in the notebook; "
            "attach it as a Kaggle data set"
        )


def _row(name: str, number: int, line: str) -> str:
    """One example as one line of JSON."""
    place = f"{name!r} line {number}"
    try:
        row = json.loads(line)
        found = json.dumps(row, ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError(f'{place} is not a JSON object, such as {{"prompt": "...", "completion": "..."}}')
    try:
        found.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{place} holds half of a surrogate pair, which is not a character") from None
    return found
