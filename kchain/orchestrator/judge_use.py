"""Whether a finished session of a phase that trains nothing counts: its lineage, its files by hash, its gates. Pure
but for reading the files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.errors import AdapterRefused
from kchain.orchestrator.checkpoint import lineage_of
from kchain.orchestrator.gates import GateResult, at_least, pad_gate
from kchain.orchestrator.json_file import read_object
from kchain.orchestrator.judge import RESULT
from kchain.orchestrator.state import Version
from kchain.phases import EvaluationGates, NoGates
from kchain.runtime.files import hash_file


@dataclass(frozen=True)
class Used:
    """What a session made of a phase's result.

    Attributes:
        sha256: of its result file, which names every other file's.
        bytes: of all files that it made.
        found: what it found, in words.
        left: names of the files that stayed on the target, and their bytes.
    """

    sha256: str
    bytes: int
    result: dict[str, Any]
    found: str
    left: Mapping[str, int]


def check_use(result: Mapping[str, Any], gates: EvaluationGates | NoGates, pad_id: int) -> list[GateResult]:
    """Hold the result of such a session against the gates of its phase."""
    found = [pad_gate(result, pad_id)]
    if not isinstance(gates, EvaluationGates):
        return found
    metrics = result.get("metrics") or {}
    if gates.min_success_rate is not None:
        found.append(at_least("success rate", metrics.get("success_rate"), gates.min_success_rate))
    if gates.better:
        better = metrics.get("better")
        got = f"the {better} is" if better else "no difference shown"
        found.append(GateResult("better", "the chain is better", got, better == "chain"))
    return found


def verify_use(folder: Path, result: dict[str, Any], result_file: Path, version: Version) -> Used:
    """What the session left in `folder`, each file compared with the hash that the session recorded.

    Raises:
        AdapterRefused: it was made of other adapters, or a file is another one.
    """
    if lineage_of(result) != list(version.lineage):
        raise AdapterRefused(
            f"{result_file}: it used other adapters than those it was pushed for", "push it again: --again"
        )
    outputs = _outputs(result)
    left = _compare(folder, outputs)
    size = sum(int(told["bytes"]) for told in outputs.values())
    return Used(hash_file(result_file), size, result, str(result.get("found") or ""), left)


def check_outputs(folder: Path) -> None:
    """Compare what was fetched with what the session recorded, where it recorded anything.

    Raises:
        AdapterRefused: a file is another one.
    """
    _compare(folder, recorded(folder))


def recorded(folder: Path) -> Mapping[str, Any]:
    """{name: {bytes, sha256}} of the files that the session recorded whose outputs are in `folder`; it may be none.

    Raises:
        AdapterRefused: its result file makes no sense.
    """
    file = folder / RESULT
    return _outputs(read_object(file)) if file.is_file() else {}


def _compare(folder: Path, outputs: Mapping[str, Any]) -> dict[str, int]:
    """The files that are not here, with their bytes, after all that are were hashed."""
    left = {}
    for name, told in outputs.items():
        path = folder / name
        if not path.is_file():
            left[name] = int(told["bytes"])
        elif hash_file(path) != told["sha256"]:
            raise AdapterRefused(f"{path}: is not the file that the session made", "fetch it again with kchain pull")
    return left


def _outputs(result: Mapping[str, Any]) -> Mapping[str, Any]:
    outputs = result.get("outputs") or {}
    try:
        return {
            str(name): {"bytes": int(told["bytes"]), "sha256": str(told["sha256"])} for name, told in outputs.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError):
        raise AdapterRefused("the result file does not list its outputs by hash", "run the phase again") from None
