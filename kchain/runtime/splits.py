"""The examples that earlier phases kept aside: found beside their adapters, so that what was forgotten can be measured.

An adapter whose training is continued is not mounted in later phases; so its phase's split is handed on with the output
of this one, as `validation-PHASE.jsonl`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .adapters import Adapter
from .contract import RESULT, VALIDATION
from .examples import Example
from .failure import Stop, emit, explain
from .paths import Paths

HANDED_ON = "validation-"
CURE = "the phase's own figures are not touched; to measure this too, run that phase again"


@dataclass(frozen=True)
class Kept:
    """What a phase kept aside."""

    phase: str
    examples: list[Example]


@dataclass(frozen=True)
class Missing:
    """A phase that is not judged by. `kept`: it did keep examples aside, which cannot be used."""

    phase: str
    reason: str
    kept: bool = True


def unusable(phase: str, reason: str) -> Missing:
    """A split that is there for nothing; whoever reads the log is told so."""
    emit("warning", message=f"what was forgotten of {phase} is not measured: {reason}")
    return Missing(phase, reason)


def find(paths: Paths, adapters: Sequence[Adapter]) -> tuple[list[Kept], list[Missing]]:
    """The splits of every earlier phase, and those that cannot be judged by."""
    found: list[Kept] = []
    without: list[Missing] = []
    for adapter in adapters:
        mount = paths.mount(adapter.kind, adapter.ref)
        for phase, file in _files(mount, adapter.phase):
            if not file.is_file():
                reason = f"{adapter.ref} has no {VALIDATION}: it was trained elsewhere, or kept nothing aside"
                without.append(Missing(phase, reason, kept=False))
                continue
            try:
                found.append(Kept(phase, read(file)))
            except (Stop, OSError) as error:
                without.append(unusable(phase, explain(error)[0]))
    return found, without


def hand_on(paths: Paths, adapters: Sequence[Adapter]) -> None:
    """Copies the splits that come with an adapter that was trained on into the output."""
    for adapter in adapters:
        if adapter.use == "continue":
            for phase, file in _files(paths.mount(adapter.kind, adapter.ref), adapter.phase):
                if file.is_file():
                    shutil.copyfile(file, paths.working / f"{HANDED_ON}{phase}.jsonl")


def read(file: Path) -> list[Example]:
    """The examples of a split.

    Raises:
        Stop: it is none, with the line.
    """
    examples = []
    try:
        with file.open(encoding="utf-8") as lines:  # not str.splitlines(), which parts texts at U+2028 too
            for number, line in enumerate(lines, 1):
                example = json.loads(line)
                if not _is_example(example):
                    raise Stop(f"{file.name} line {number} is not an example", CURE)
                examples.append(example)
    except ValueError as error:
        raise Stop(f"{file.name} cannot be read: {error}", CURE) from None
    if not examples:
        raise Stop(f"{file.name} is empty", CURE)
    return examples


def _files(mount: Path, phase: str) -> Iterator[tuple[str, Path]]:
    """Phases and the files of their splits in an output: those it was handed, then its own."""
    if (mount / RESULT).is_file():  # a data set of somebody else's may have files of any name
        for file in sorted(mount.glob(f"{HANDED_ON}*.jsonl")):
            yield file.stem.removeprefix(HANDED_ON), file
    yield phase, mount / VALIDATION


def _is_example(value: Any) -> bool:
    if not isinstance(value, dict) or not _texts(value.get("style", "")):
        return False
    turns = value.get("messages")
    if isinstance(turns, list) and turns:
        return all(isinstance(turn, dict) and _texts(turn.get("role"), turn.get("content")) for turn in turns)
    return "messages" not in value and _texts(value.get("text"))


def _texts(*values: Any) -> bool:
    return all(isinstance(value, str) for value in values)
