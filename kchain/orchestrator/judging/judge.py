"""Whether a finished version counts: its result file, its adapter, its lineage, its gates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.errors import AdapterRefused, EditedOutside, GateMissed, KchainError, PhaseFailed
from kchain.orchestrator.journal.state import Ancestor, Version, rows
from kchain.orchestrator.judging import gates
from kchain.orchestrator.judging.adapter import Adapter, Expected, read_object, verify
from kchain.orchestrator.judging.advice import advise, failing_cell
from kchain.orchestrator.judging.checkpoint import Missing, Paused, lineage_of, missing, paused
from kchain.orchestrator.judging.gates import GateResult, at_least, pad_gate
from kchain.phases import Chain, EvaluationGates, Gates, NoGates
from kchain.runtime.contract import ENDED, LOG, RESULT
from kchain.runtime.files import hash_file


@dataclass(frozen=True)
class Verdict:
    """A version that counts: what it made is an adapter, or, where its phase trains nothing, something else."""

    made: Adapter | Used
    gates: tuple[GateResult, ...]


def judge(
    chain: Chain, phase: str, version: Version, folder: Path, *, final: bool = False
) -> Verdict | Paused | Missing:
    """Decide about the outputs in `folder`. The result file outranks the target's status word.

    Args:
        final: what a session that its time limit ended has reached is the result: there is no other session.

    Raises:
        GateMissed: the result is not what the gates ask for.
        PhaseFailed: the training failed; with the traceback's cell and advice where there are any.
        AdapterRefused: the adapter is not what this phase should have made.
        EditedOutside: these are the outputs of another version.
    """
    result = read_result(folder)
    if result is None:
        raise _without_result(phase, version, folder)
    if result.get("bundle") != version.hash:
        raise EditedOutside(
            f"the outputs of {phase} version {version.number} were made by another bundle than the one pushed",
            f"look at the kernel on the target; to run it again: kchain push {phase} --again",
        )
    if not final and (stopped := paused(result, version, folder)) is not None:
        return stopped
    if result.get("status") == "failed":
        if (absent := missing(result, version)) is not None:
            return absent
        reason = str(result.get("reason") or "no reason given")
        raise with_advice(f"{phase} version {version.number} failed: {reason}", reason, folder)
    missed = [gate for gate in gate_results(chain, phase, result) if not gate.passed]
    if missed:
        lines = "\n".join(f"  {gate.name}: wanted {gate.wanted}, got {gate.got}" for gate in missed)
        advice = advise(lines)
        hint = f"{advice.change}\n" if advice is not None else ""
        if final and version.session == version.max_sessions:
            hint = f"it has used its {version.max_sessions} session{'s' * (version.max_sessions > 1)}\n"
        raise GateMissed(
            f"{phase} version {version.number} missed its gates:\n{lines}",
            f"{hint}a gate changed in the phase file is asked again of this same run: kchain watch",
        )
    passed = tuple(gate_results(chain, phase, result))
    if chain.phase(phase).use is not None:
        return Verdict(verify_use(folder, result, folder / RESULT, version), passed)
    return Verdict(verify(folder, expected(chain, phase, version)), passed)


def gate_results(chain: Chain, phase: str, result: Mapping[str, Any]) -> list[GateResult]:
    """The gates of a phase of any kind, as they stand in its file now, asked of a result."""
    asked, pad_id = chain.phase(phase).gates, chain.model.eos_id
    return gates.check(result, asked, pad_id) if isinstance(asked, Gates) else check_use(result, asked, pad_id)


def expected(chain: Chain, phase: str, version: Version) -> Expected:
    """What the adapter of a version must be."""
    return Expected(
        lora=chain.phase(phase).lora,
        base_model=chain.model.source,
        pad_id=chain.model.eos_id,
        pad_token=chain.model.eos_token,
        bundle_hash=version.hash,
        tokens=chain.phase(phase).tokens.all,
        lineage=tuple((ancestor.phase, ancestor.sha256) for ancestor in version.lineage),
    )


def read_result(folder: Path) -> dict[str, Any] | None:
    """The result file of a session; None: it left none.

    Raises:
        AdapterRefused: the file is there and no result.
    """
    try:
        result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AdapterRefused(f"{folder / RESULT}: cannot be read: {error}", "fetch it again: kchain pull") from None
    if not isinstance(result, dict):
        raise AdapterRefused(f"{folder / RESULT}: is not a JSON object", "run the phase again")
    return result


def result_event(
    made: Adapter | Used, *, version: int | None, kind: str, ref: str, source_folder: str, folder: str
) -> dict[str, Any]:
    """What was verified as the journal's `verified` or `adopted` event."""
    result: Mapping[str, Any] = made.result
    known = result.get("lineage")
    moved = dict(result.get("moved") or {})
    return {
        "version": version,
        "kind": kind,
        "ref": ref,
        "source_folder": source_folder,
        "sha256": made.sha256,
        "bytes": made.bytes,
        "lineage": rows(_lineage(known)) if known is not None else None,
        "pad_id": result.get("pad_id"),
        "metrics": dict(result.get("metrics") or {}),
        "moved": moved,
        "seconds": result.get("seconds"),
        "folder": folder,
        "found": made.found if isinstance(made, Used) else "",
    }


def with_advice(message: str, text: str, folder: Path) -> KchainError:
    """A failed phase with what the log tells and what experience says about it."""
    log = _log(folder)
    # Whoever was ended from outside left no reason of his own: his log may tell of memory or disk, which counts first.
    advice = advise(f"{log}\n{text}") if ENDED in text else advise(text) or advise(log)
    cell = failing_cell(log)
    hint = f"{advice.meaning}; {advice.change}" if advice is not None else ""
    return PhaseFailed(f"{message}\n{cell}" if cell else message, hint)


def _without_result(phase: str, version: Version, folder: Path) -> KchainError:
    said = f": {version.failure}" if version.failure else ""
    message = f"{phase} version {version.number} ended with {version.word}{said} and left no {RESULT}"
    return with_advice(message, version.failure or version.word, folder)


def _log(folder: Path) -> str:
    try:
        return (folder / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _lineage(listed: Any) -> list[Ancestor]:
    return [Ancestor(str(row["phase"]), str(row["sha256"])) for row in listed]


# Whether a finished session of a phase that trains nothing counts: its lineage, its files by hash, its gates. Pure


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
