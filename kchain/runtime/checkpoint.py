"""What a session that ran out of time hands to the next one: a folder of files, each with its hash."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .contract import (
    CHECKPOINT,
    MANIFEST,
    UNFIT_CHECKPOINT,
    CheckpointEntry,
    CheckpointManifest,
    LineageEntry,
    decisive,
)
from .encode import Encoded
from .failure import Stop, emit
from .files import begin_folder, finish_folder, hash_file, write_json
from .handover import CHECKPOINTS
from .paths import Paths

STATE = "trainer_state.json"
# What the Trainer writes and no run reads: the settings as a pickle, which is not opened, and PEFT's model card.
NOT_NEEDED = ("training_args.bin", "README.md")


def latest(folder: Path, processes: int) -> Path | None:
    """The newest whole checkpoint that a training left on scratch."""
    states = (folder / CHECKPOINTS).glob(f"checkpoint-*/{STATE}")
    whole = [state.parent for state in states if len(list(state.parent.glob("rng_state*.pth"))) == processes]
    return max(whole, key=_step, default=None)


def step_of(folder: str | None) -> int:
    """The optimizer step that a checkpoint was made after; 0 for none."""
    return 0 if folder is None else _step(Path(folder))


def publish(source: Path, working: Path, run: dict[str, Any]) -> CheckpointEntry:
    """Writes `checkpoint/` into the output; returns its entry for the result file.

    Args:
        source: a whole checkpoint of the Trainer.
        run: what the next session compares: fingerprints, and how the run is shared out.
    """
    partial, target = begin_folder(working / CHECKPOINT), working / CHECKPOINT
    for file in sorted(source.iterdir()):
        if file.name not in NOT_NEEDED:
            shutil.copyfile(file, partial / file.name)
    state = json.loads((source / STATE).read_text(encoding="utf-8"))
    step, steps = state["global_step"], state["max_steps"]
    files = {file.name: hash_file(file) for file in sorted(partial.iterdir())}
    write_json(partial / MANIFEST, asdict(CheckpointManifest(step=step, steps=steps, files=files, **run)))
    finish_folder(partial, target)
    size = sum(file.stat().st_size for file in target.iterdir())
    return CheckpointEntry(CHECKPOINT, hash_file(target / MANIFEST), size, step, steps)


def find(paths: Paths, continuation: dict[str, Any], parameters: str) -> tuple[Path, CheckpointManifest]:
    """The checkpoint to go on from, and its manifest.

    Args:
        continuation: of PARAMETERS: kind, ref, folder and sha256.
        parameters: fingerprint of this session's parameters.

    Raises:
        Stop: it is not mounted, not the one that was meant, not whole, or of another run.
    """
    where = f"continuation: the checkpoint of {continuation['kind']} {continuation['ref']}"
    cure = "push the phase again: it then begins at the beginning"
    try:
        folder = paths.mount(continuation["kind"], continuation["ref"]) / continuation["folder"]
    except Stop as error:
        raise Stop(f"continuation: {error.reason}", error.cure) from None
    if not (folder / MANIFEST).is_file():
        raise Stop(f"{where} is not there: {folder} has no {MANIFEST}", cure)
    if hash_file(folder / MANIFEST) != continuation["sha256"]:
        raise Stop(f"{where} is another one: its {MANIFEST} has another sha256 than the one to go on from", cure)
    manifest = CheckpointManifest(**json.loads((folder / MANIFEST).read_text(encoding="utf-8")))
    for name, expected in manifest.files.items():
        if not (folder / name).is_file() or hash_file(folder / name) != expected:
            raise Stop(f"{where} is damaged: {name} is missing or changed", cure)
    _compare("parameters", manifest.parameters, parameters, where)
    return folder, manifest


def tell(manifest: CheckpointManifest, session: int, processes: int) -> None:
    """Says from where a run goes on."""
    emit("continuation", session=session, step=manifest.step, steps=manifest.steps)
    if manifest.processes != processes:
        emit("warning", message=f"{manifest.processes} processes began this run: dropout will differ")


def check_data(manifest: CheckpointManifest, data: str) -> None:
    """Refuses to go on with other examples than the run began with.

    Raises:
        Stop: they are others.
    """
    _compare("data", manifest.data, data, "continuation: the checkpoint")


def parameters_print(parameters: dict[str, Any], lineage: Sequence[LineageEntry]) -> str:
    """Fingerprint of all parameters that decide what is learned, and of the adapters that were found."""
    text = json.dumps([decisive(parameters), [asdict(line) for line in lineage]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def data_print(examples: Sequence[Encoded]) -> str:
    """Fingerprint of encoded examples and their order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(len(example).to_bytes(4, "little") + example.ids.tobytes() + example.labels.tobytes())
    return digest.hexdigest()


def _compare(what: str, told: str, found: str, where: str) -> None:
    if told != found:
        raise Stop(
            f"{where} {UNFIT_CHECKPOINT} {what}",
            "push the phase again: it then starts over; or undo what was changed since its last session",
        )


def _step(folder: Path) -> int:
    state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    return int(state["global_step"])
