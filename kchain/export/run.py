"""One export from start to end: made in a workshop, described, then put in place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kchain import __version__
from kchain.export.companions import copy_licences, write_json
from kchain.export.gguf_file import TYPES, write_gguf
from kchain.export.merged import write_merged
from kchain.export.model_card import card
from kchain.export.place import MANIFEST, put_in_place, workshop
from kchain.export.stacked import write_stacked
from kchain.export.subject import Subject, need
from kchain.phases import Chain

FORMATS = ("safetensors", "adapter", "gguf")
# Name of the export in exports/, and the disk it takes as a share of the base model's bytes, working files included.
_NAMES = {"safetensors": "model", "adapter": "adapter"}
_SHARES = {"safetensors": 1.0, "adapter": 0.0, "f16": 2.0, "q8_0": 1.6}
# What the tokenizer, the configurations and the card take at most.
_BESIDE = 64 * 1024**2
_WRITERS: dict[str, Callable[[Subject, Path], list[str]]] = {"safetensors": write_merged, "adapter": write_stacked}


@dataclass(frozen=True)
class Exported:
    """What lies in its place now; `files` are names with bytes and sha256."""

    path: Path
    manifest: dict[str, Any]

    @property
    def bytes(self) -> int:
        return sum(file["bytes"] for file in self.manifest["files"].values())

    def as_dict(self) -> dict[str, Any]:
        return {"path": str(self.path), "bytes": self.bytes, **self.manifest}


def default_place(subject: Subject, form: str, kind: str) -> Path:
    """Where an export goes when nobody says: exports/PHASE-model, exports/PHASE-adapter, exports/PHASE-f16.gguf."""
    place = folder_place(subject.chain, subject.phase, form, kind)
    return place.with_name(f"{place.name}.gguf") if form == "gguf" else place


def folder_place(chain: Chain, phase: str, form: str, kind: str) -> Path:
    """Where an export lies that is to be published; a GGUF file has a folder of its own there, exports/PHASE-f16."""
    return chain.root / "exports" / f"{phase}-{kind if form == 'gguf' else _NAMES[form]}"


def export(subject: Subject, form: str, kind: str, out: Path, force: bool, in_folder: bool = False) -> Exported:
    """Write one export to `out`.

    Args:
        form: one of FORMATS.
        kind: one of TYPES; counts for "gguf" alone.
        force: replace an earlier export.
        in_folder: a GGUF file gets a folder with its card and manifest; the other forms always are one.

    Raises:
        InputError: a package or the room is missing, `out` is taken, or the model cannot be exported so.
    """
    assert form in FORMATS and kind in TYPES
    need("export", "safetensors", "torch", *(("gguf",) if form == "gguf" else ()))
    base = sum(file.stat().st_size for file in subject.base.glob("*.safetensors"))
    adapters = len(subject.links) * 2 * sum(link.bytes for link in subject.links)
    share = _SHARES[kind if form == "gguf" else form]
    with workshop(out, int(base * share) + adapters + _BESIDE, force) as shop:
        made = _folder(subject, form, kind, shop) if in_folder or form != "gguf" else _gguf(subject, kind, shop)
        manifest = _manifest(subject, form, kind, made, out)
        if made.is_dir():
            write_json(made / MANIFEST, manifest)
        put_in_place(made, out)
    return Exported(out, manifest)


def _folder(subject: Subject, form: str, kind: str, shop: Path) -> Path:
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


def _gguf(subject: Subject, kind: str, shop: Path) -> Path:
    write_merged(subject, shop / "merged")
    lineage = ", then ".join(f"{link.phase} {link.sha256}" for link in subject.links)
    about = {
        "general.name": f"{subject.chain.name} {subject.phase}",
        "general.description": subject.chain.phase(subject.phase).description,
        "kchain.base_model": subject.chain.model.source,
        "kchain.lineage": lineage,
    }
    write_gguf(shop / "merged", shop / "made.gguf", kind, about, subject.chain.model.eos_id)
    return shop / "made.gguf"


def _manifest(subject: Subject, form: str, kind: str, made: Path, out: Path) -> dict[str, Any]:
    """What was exported, from what, by hash."""
    files = sorted(path for path in made.iterdir()) if made.is_dir() else [made]
    names = {path: path.name if made.is_dir() else out.name for path in files}
    return {
        "kchain": __version__,
        "format": form,
        "type": kind if form == "gguf" else None,
        "chain": subject.chain.name,
        "phase": subject.phase,
        "base_model": subject.chain.model.source,
        "lineage": [{"phase": link.phase, "sha256": link.sha256} for link in subject.links],
        "files": {names[path]: {"bytes": path.stat().st_size, "sha256": _hash(path)} for path in files},
    }


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
