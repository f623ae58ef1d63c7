"""Collected interactions become conversations to train on: filtered, de-duplicated, split, each role with its prompt.

The split takes exact shares of the examples in the order of lots that their content draws: the same examples give the
same split whatever their order in the files.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from kchain.errors import InputError
from kchain.runtime.examples import MISSING, Example, Row, text
from kchain.runtime.failure import Stop
from kchain.runtime.files import write_json, write_text
from kchain.runtime.lots import Lottery, fingerprint, pick, said
from kchain.runtime.readers import READERS, Broken, kind, rows

PARTS = ("train", "validation", "test")
METADATA = "metadata.json"
REJECTED = "rejected.jsonl"
FAILED = frozenset({"false", "0", "no", "failed", "failure", "error", "errored", "timeout", "cancelled"})
DEFAULT_PROMPT = "You are a helpful assistant."
ROLE_PROMPT = "You are a {role}. Do the task you are given and answer with its result."
_PROMPTS = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class Preparation:
    """Where in a record things stand (dots reach into nested objects), and how the examples are split.

    Attributes:
        success: fields of which the first that is there says whether the execution succeeded.
        prompts: system prompt by role; "default" for every other one. A role without a prompt gets a plain sentence.
        validation, test: share of the examples in each set; the rest is trained on.
    """

    task: tuple[str, ...] = ("task.description",)
    role: tuple[str, ...] = ("agent.role",)
    answer: tuple[str, ...] = ("execution.output",)
    success: tuple[str, ...] = ("execution.success", "execution.status", "success", "status")
    prompts: Mapping[str, str] = field(default_factory=dict)
    validation: float = 0.1
    test: float = 0.1
    seed: int = 42


@dataclass(frozen=True)
class Prepared:
    """What was written: examples by part, metadata as in metadata.json."""

    parts: Mapping[str, list[Example]]
    metadata: dict[str, Any]


@dataclass(frozen=True)
class _Rejected:
    """A record that gives no example."""

    file: str
    line: int
    reason: str
    row: str


def prepare(source: Path, target: Path, settings: Preparation, replace: bool = False) -> Prepared:
    """Write train.jsonl, validation.jsonl, test.jsonl and metadata.json, and rejected.jsonl where there are such.

    Args:
        source: a JSON array, JSON lines, or a folder of such files and of files with one record each.
        target: a folder; made when missing.
        replace: overwrite what an earlier run wrote.

    Raises:
        InputError: nothing can be read, no example is left, or the files are there already.
    """
    names = [f"{part}.jsonl" for part in PARTS] + [METADATA, REJECTED]
    present = [name for name in names if (target / name).exists()]
    if present and not replace:
        raise InputError(f"{target} has {', '.join(present)} already", "choose another folder, or add --replace")
    files = _files(source)
    examples, rejected, roles = _collect(files, settings)
    if not examples:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in _reasons(rejected).items()) or "no records"
        raise InputError(f"{source}: no examples are left: {reasons}", "correct --task, --role and --answer")
    parts = _split(examples, settings)
    target.mkdir(parents=True, exist_ok=True)
    for name in present:
        (target / name).unlink()
    texts = {f"{part}.jsonl": _lines(parts[part]) for part in PARTS}
    if rejected:
        texts[REJECTED] = _lines(vars(one) for one in rejected)
    for name, told in texts.items():
        write_text(target / name, told)
    metadata = _metadata(files, settings, parts, rejected, roles, texts)
    write_json(target / METADATA, metadata)
    return Prepared(parts, metadata)


def read_prompts(path: Path) -> dict[str, str]:
    """System prompts by role, from a TOML or JSON table.

    Raises:
        InputError: the file is not such a table.
    """
    try:
        told = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".json":
            return _PROMPTS.validate_json(told)
        return _PROMPTS.validate_python(tomllib.loads(told))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from error
    except ValidationError as error:
        reason = f"{path}: not a table of texts: {error.errors()[0]['msg']}"
        raise InputError(reason, 'one line a role: analyst = "You are an analyst."') from error
    except ValueError as error:
        raise InputError(f"{path}: {error}", 'one line a role: analyst = "You are an analyst."') from error


def _files(source: Path) -> list[Path]:
    if source.is_dir():
        found = sorted(path for path in source.rglob("*") if path.is_file() and kind(path) in READERS)
        if not found:
            raise InputError(f"{source} holds no file that can be read", f"one of {', '.join(READERS)}")
        return found
    if not source.is_file():
        raise InputError(f"there is no file or folder {source}")
    return [source]


def _collect(files: list[Path], settings: Preparation) -> tuple[list[Example], list[_Rejected], Counter[str]]:
    """Examples in the order of the files, each content once; records that give none; examples by role."""
    examples: list[Example] = []
    rejected: list[_Rejected] = []
    roles: Counter[str] = Counter()
    seen: set[bytes] = set()
    for file, line, row in _rows(files):
        if isinstance(row, Broken):
            rejected.append(_Rejected(file, line, row.reason, text(row.raw)))
            continue
        found = _example(row, settings)
        key = b"" if isinstance(found, str) else fingerprint(found[0])
        reason = found if isinstance(found, str) else "a duplicate" if key in seen else None
        if isinstance(found, str) or reason:
            rejected.append(_Rejected(file, line, reason or "", text(row)))
            continue
        seen.add(key)
        examples.append(found[0])
        roles[found[1]] += 1
    return examples, rejected, roles


def _rows(files: list[Path]) -> Iterator[tuple[str, int, Row | Broken]]:
    for path in files:
        try:
            for line, row in rows(path):
                yield path.name, line, row
        except Stop as stop:
            raise InputError(stop.reason, stop.cure) from stop


def _example(row: Row, settings: Preparation) -> tuple[Example, str] | str:
    """(example, role) of a record, or why it gives none."""
    success = pick(row, settings.success)
    if success is not MISSING and success is not None and text(success).strip().lower() in FAILED:
        return "the execution failed"
    task, answer = (text(pick(row, columns)).strip() for columns in (settings.task, settings.answer))
    if not task or not answer:
        name = settings.answer if task else settings.task
        return f"{' or '.join(name)} is empty or missing"
    role = text(pick(row, settings.role)).strip()
    turns = [("system", system_prompt(role, settings.prompts)), ("user", task), ("assistant", answer)]
    return {"messages": [{"role": who, "content": said} for who, said in turns]}, role


def system_prompt(role: str, prompts: Mapping[str, str]) -> str:
    """The system prompt of an agent in that role."""
    if role in prompts:
        return prompts[role]
    plain = ROLE_PROMPT.format(role=role.replace("_", " ").replace("-", " ")) if role else DEFAULT_PROMPT
    return prompts.get("default", plain)


def _split(examples: list[Example], settings: Preparation) -> dict[str, list[Example]]:
    """Exact shares, rounded down; the rest goes to the test set: 298 give 238, 29 and 31."""
    lottery = Lottery(f"prepare/{settings.seed}")
    ordered = sorted(examples, key=lambda example: (lottery.lot(said(example)), fingerprint(example)))
    # In whole millionths: 1 - 0.1 - 0.1 must be 0.8.
    judge, test = (round(share * 1_000_000) for share in (settings.validation, settings.test))
    judged = len(ordered) * judge // 1_000_000
    learned = len(ordered) * (1_000_000 - judge - test) // 1_000_000 if test else len(ordered) - judged
    return {
        "train": ordered[:learned],
        "validation": ordered[learned : learned + judged],
        "test": ordered[learned + judged :],
    }


def _lines(values: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _reasons(rejected: list[_Rejected]) -> dict[str, int]:
    return dict(Counter(one.reason for one in rejected).most_common())


def _metadata(
    files: list[Path],
    settings: Preparation,
    parts: Mapping[str, list[Example]],
    rejected: list[_Rejected],
    roles: Counter[str],
    texts: Mapping[str, str],
) -> dict[str, Any]:
    """No time and no path of this machine: the same input gives the same bytes."""
    used = {part: len(examples) for part, examples in parts.items()}
    return {
        "format": 1,
        "source": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "records": sum(used.values()) + len(rejected),
        "examples": {**used, "total": sum(used.values())},
        "rejected": {"total": len(rejected), "reasons": _reasons(rejected)},
        "roles": {
            role: {"examples": count, "system_prompt": system_prompt(role, settings.prompts)}
            for role, count in sorted(roles.items())
        },
        "fields": {
            "task": settings.task,
            "role": settings.role,
            "answer": settings.answer,
            "success": settings.success,
        },
        "split": {"validation": settings.validation, "test": settings.test, "seed": settings.seed},
        "sha256": {name: hashlib.sha256(told.encode()).hexdigest() for name, told in texts.items()},
    }
