"""One export from start to end: made in a workshop, described, then put in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain import __version__
from kchain.errors import need
from kchain.runtime.contract import EXPORT_MANIFEST
from kchain.runtime.files import hash_file
from kchain.uses.companions import copy_licences, write_json
from kchain.uses.gguf import TYPES, write_gguf
from kchain.uses.merged import merged_model, put_in_place, workshop, write_merged
from kchain.uses.model_card import card
from kchain.uses.stacked import write_stacked
from kchain.uses.subject import TrainedPhase

FORMATS = ("safetensors", "adapter", "gguf")
# Name of the export, and the disk it takes as a share of the base model's bytes.
_NAMES = {"safetensors": "model", "adapter": "adapter"}
_SHARES = {"safetensors": 1.0, "adapter": 0.0, "f16": 1.0, "q8_0": 0.6}
# What the tokenizer, the configurations and the card take at most.
_BESIDE = 64 * 1024**2
_WRITERS: dict[str, Callable[[TrainedPhase, Path], list[str]]] = {"safetensors": write_merged, "adapter": write_stacked}


@dataclass(frozen=True)
class Exported:
    """An export in its place, and its manifest."""

    path: Path
    manifest: dict[str, Any]

    @property
    def bytes(self) -> int:
        return sum(file["bytes"] for file in self.manifest["files"].values())

    def as_dict(self) -> dict[str, Any]:
        return {"path": str(self.path), "bytes": self.bytes, **self.manifest}


def export_name(phase: str, form: str, kind: str) -> str:
    """The usual name of an export: PHASE-model, PHASE-adapter, PHASE-f16.gguf."""
    return f"{phase}-{kind}.gguf" if form == "gguf" else f"{phase}-{_NAMES[form]}"


def export(subject: TrainedPhase, form: str, kind: str, out: Path, force: bool, in_folder: bool = False) -> Exported:
    """Write one export to `out`.

    Args:
        form: one of FORMATS.
        kind: one of TYPES; counts for "gguf" alone.
        force: replace an earlier export.
        in_folder: a GGUF file gets a folder with its card and manifest; the other forms always are one.

    Raises:
        InputError: a package or room on the disk is missing, `out` is taken, or the model has no such form.
    """
    assert form in FORMATS and kind in TYPES
    need("export", "safetensors", "torch", *(("gguf",) if form == "gguf" else ()))
    base = sum(file.stat().st_size for file in subject.base.glob("*.safetensors"))
    adapters = len(subject.parts) * 2 * sum(adapter.bytes for adapter in subject.adapters)
    share = _SHARES[kind if form == "gguf" else form]
    with workshop(out, int(base * share) + adapters + _BESIDE, force) as shop:
        made = _folder(subject, form, kind, shop) if in_folder or form != "gguf" else _gguf(subject, kind, shop)
        manifest = _manifest(subject, form, kind, made, out)
        if made.is_dir():
            write_json(made / EXPORT_MANIFEST, manifest)
        put_in_place(made, out)
    return Exported(out, manifest)


def _folder(subject: TrainedPhase, form: str, kind: str, shop: Path) -> Path:
    made = shop / "made"
    if form == "gguf":
        file = _gguf(subject, kind, shop)
        made.mkdir()
        file.rename(made / f"{subject.phase}-{kind}.gguf")
        licences = copy_licences(subject.base, made)
    else:
        licences = _WRITERS[form](subject, made)
    (made / "README.md").write_text(card(subject, form, licences), encoding="utf-8")
    return made


def _gguf(subject: TrainedPhase, kind: str, shop: Path) -> Path:
    about = {
        "general.name": f"{subject.chain} {subject.phase}",
        "general.description": subject.description,
        "kchain.base_model": subject.base_model,
        "kchain.lineage": ", then ".join(f"{line['phase']} {line['sha256']}" for line in subject.lineage),
    }
    with merged_model(subject) as merged:
        write_gguf(merged, shop / "made.gguf", kind, about, subject.pad["id"])
    return shop / "made.gguf"


def _manifest(subject: TrainedPhase, form: str, kind: str, made: Path, out: Path) -> dict[str, Any]:
    """What was exported, from what, by hash."""
    files = sorted(made.iterdir()) if made.is_dir() else [made]
    names = {path: path.name if made.is_dir() else out.name for path in files}
    return {
        "kchain": __version__,
        "format": form,
        "type": kind if form == "gguf" else None,
        "chain": subject.chain,
        "phase": subject.phase,
        "base_model": subject.base_model,
        "lineage": subject.lineage,
        "files": {names[path]: {"bytes": path.stat().st_size, "sha256": hash_file(path)} for path in files},
    }
