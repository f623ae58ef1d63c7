"""Whether a version counts: its result file, its adapter or the files it made, its lineage, its gates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain.errors import AdapterRefused, EditedOutside, GateMissed, KchainError, PhaseFailed
from kchain.orchestrator.journal.state import Version, rows
from kchain.orchestrator.judging import gates
from kchain.orchestrator.judging.adapter import VerifiedAdapter, expect, verify
from kchain.orchestrator.judging.advice import advise, failing_cell
from kchain.orchestrator.judging.checkpoint import NoCheckpoint, Paused, no_checkpoint, paused
from kchain.orchestrator.judging.gates import GateResult
from kchain.orchestrator.judging.result import ResultFile, read_result
from kchain.phases import Chain
from kchain.runtime.contract import ENDED, LOG, RESULT, OutputEntry
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
    result: ResultFile
    found: str
    left: Mapping[str, int]


@dataclass(frozen=True)
class Verdict:
    """A version that counts: what it made is an adapter, or, where its phase trains nothing, something else."""

    made: VerifiedAdapter | Used
    gates: tuple[GateResult, ...]


def judge(
    chain: Chain, phase: str, version: Version, folder: Path, *, final: bool = False
) -> Verdict | Paused | NoCheckpoint:
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
        said = f": {version.failure}" if version.failure else ""
        message = f"{phase} version {version.number} ended with {version.word}{said} and left no {RESULT}"
        raise with_advice(message, version.failure or version.word, folder)
    if result.bundle != version.hash:
        raise EditedOutside(
            f"the outputs of {phase} version {version.number} were made by another bundle than the one pushed",
            f"look at the kernel on the target; to run it again: kchain push {phase} --again",
        )
    if not final and (stopped := paused(result, version, folder)) is not None:
        return stopped
    if result.status == "failed":
        if (absent := no_checkpoint(result, version)) is not None:
            return absent
        reason = result.reason or "no reason given"
        raise with_advice(f"{phase} version {version.number} failed: {reason}", reason, folder)
    asked = gate_results(chain, phase, result)
    missed = [gate for gate in asked if not gate.passed]
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
    if chain.phase(phase).use is not None:
        return Verdict(_verify_use(folder, result, version), tuple(asked))
    expected = expect(chain, phase, bundle_hash=version.hash, lineage=version.lineage)
    return Verdict(verify(folder, expected), tuple(asked))


def gate_results(chain: Chain, phase: str, result: ResultFile) -> list[GateResult]:
    """The gates of a phase, as they stand in its file now, asked of a result."""
    return gates.check(result, chain.phase(phase).gates, chain.model.eos_id)


def with_advice(message: str, text: str, folder: Path) -> KchainError:
    """A failed phase with what the log tells and what experience says about it."""
    try:
        log = (folder / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        log = ""
    # Whoever was ended from outside left no reason of his own: his log may tell of memory or disk, which counts first.
    advice = advise(f"{log}\n{text}") if ENDED in text else advise(text) or advise(log)
    cell = failing_cell(log)
    hint = f"{advice.meaning}; {advice.change}" if advice is not None else ""
    return PhaseFailed(f"{message}\n{cell}" if cell else message, hint)


def _verify_use(folder: Path, result: ResultFile, version: Version) -> Used:
    """What a session that trains nothing left in `folder`.

    Raises:
        AdapterRefused: it was made of other adapters, or a file is not the one that the session recorded.
    """
    if (result.lineage or ()) != version.lineage:
        told = f"{folder / RESULT}: it used other adapters than those it was pushed for"
        raise AdapterRefused(told, "push it again: --again")
    left = _compare(folder, result.outputs)
    size = sum(told.bytes for told in result.outputs.values())
    return Used(hash_file(folder / RESULT), size, result, result.found, left)


def check_outputs(folder: Path) -> None:
    """Compare what was fetched with what the session recorded, where it recorded anything.

    Raises:
        AdapterRefused: a file is another one.
    """
    result = read_result(folder)
    _compare(folder, result.outputs if result is not None else {})


def _compare(folder: Path, outputs: Mapping[str, OutputEntry]) -> dict[str, int]:
    """The files that are not here, with their bytes, after all that are were hashed."""
    left = {}
    for name, told in outputs.items():
        path = folder / name
        if not path.is_file():
            left[name] = told.bytes
        elif hash_file(path) != told.sha256:
            raise AdapterRefused(f"{path} is not the file that the session made", "fetch it again with kchain pull")
    return left


def result_event(
    made: VerifiedAdapter | Used, *, version: int | None, kind: str, ref: str, source_folder: str, folder: str
) -> dict[str, Any]:
    """What was verified as the journal's `verified` or `adopted` event."""
    result = made.result or ResultFile()
    return {
        "version": version,
        "kind": kind,
        "ref": ref,
        "source_folder": source_folder,
        "sha256": made.sha256,
        "bytes": made.bytes,
        "lineage": rows(result.lineage) if result.lineage is not None else None,
        "pad_id": result.pad_id,
        "metrics": result.metrics.model_dump(exclude_unset=True),
        "moved": dict(result.moved),
        "seconds": result.seconds,
        "folder": folder,
        "found": made.found if isinstance(made, Used) else "",
    }
