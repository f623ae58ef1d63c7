"""What each phase changed, by its own account: read from the result files of a chain as they lie on this machine."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.orchestrator.judge import RESULT
from kchain.orchestrator.state import PhaseState
from kchain.phases import Chain
from kchain.runtime.files import hash_file


@dataclass(frozen=True)
class Figures:
    """Loss (nats a token) and token accuracy (0 to 1) of one model on one split."""

    loss: float
    accuracy: float


@dataclass(frozen=True)
class Judged:
    """One split, judged by the model before a phase and by the one after it; None where that was not judged."""

    split: str
    examples: int
    before: Figures | None
    after: Figures

    @property
    def rise(self) -> float | None:
        """By how much the loss rose; below 0: it fell."""
        return None if self.before is None else self.after.loss - self.before.loss


def read_results(chain: Chain, states: Mapping[str, PhaseState]) -> dict[str, Mapping[str, Any]]:
    """The result file of every phase whose outputs are here, also of one that missed its gates.

    A file that is not that of the result, or of the version, that the journal knows is left out.
    """
    found = {}
    for phase in chain.phases:
        state = states.get(phase.name, PhaseState())
        result = _result(chain.root, state, trained=phase.use is None)
        if result is not None:
            found[phase.name] = result
    return found


def judged(result: Mapping[str, Any]) -> list[Judged]:
    """The splits that a phase's session judged, its own last; entries that make no sense are left out."""
    evaluation = result.get("evaluation")
    splits = evaluation.get("splits") if isinstance(evaluation, Mapping) else None
    read = [_split(one) for one in splits] if isinstance(splits, list) else []
    return [one for one in read if one is not None]


def columns(results: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """The splits that were judged anywhere, in the order of the chain's phases."""
    seen = {one.split for result in results.values() for one in judged(result)}
    return [name for name in names if name in seen]


def _result(root: Path, state: PhaseState, trained: bool) -> Mapping[str, Any] | None:
    if state.result is not None and trained:
        read = _read((root / state.result.folder).parent)
        return read if _of(read, "adapter").get("sha256") == state.result.sha256 else None
    if state.result is not None:
        file = root / state.result.folder / RESULT
        return _read(file.parent) if file.is_file() and hash_file(file) == state.result.sha256 else None
    version = state.version
    if state.failure is None or version is None or not version.folder:
        return None
    read = _read(root / version.folder)
    return read if read is not None and read.get("bundle") == version.hash else None


def _read(folder: Path) -> Mapping[str, Any] | None:
    try:
        read = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None


def _of(value: Mapping[str, Any] | None, key: str) -> Mapping[str, Any]:
    inner = value.get(key) if value is not None else None
    return inner if isinstance(inner, Mapping) else {}


def _split(value: Any) -> Judged | None:
    if not isinstance(value, Mapping) or not isinstance(value.get("phase"), str):
        return None
    after, examples = _figures(value.get("after")), value.get("examples")
    if after is None or not isinstance(examples, int):
        return None
    return Judged(value["phase"], examples, _figures(value.get("before")), after)


def _figures(value: Any) -> Figures | None:
    if not isinstance(value, Mapping):
        return None
    loss, accuracy = value.get("loss"), value.get("token_accuracy")
    if not all(isinstance(one, int | float) and math.isfinite(one) for one in (loss, accuracy)):
        return None
    return Figures(float(value["loss"]), float(value["token_accuracy"]))
