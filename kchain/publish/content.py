"""A finished phase on this machine: its verified adapters with their base, and its export as it would be uploaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kchain.client.target import Target
from kchain.errors import InputError
from kchain.orchestrator.finished import Link, base_folder, finished
from kchain.orchestrator.journal.journal import Key, read_states
from kchain.phases import Chain
from kchain.runtime.adapters import Adapter
from kchain.runtime.contract import EXPORT_MANIFEST
from kchain.runtime.files import hash_file
from kchain.uses.companions import read_json
from kchain.uses.subject import Part, TrainedPhase

# Where a merged model is while it is needed.
WORK = Path(".kchain") / "merged"
CARD = "README.md"
MODEL_METADATA, VARIATION_METADATA = "model-metadata.json", "model-instance-metadata.json"
# What stands beside the files of a version and is not part of them; Kaggle's client leaves the same names out.
_BESIDE = (MODEL_METADATA, VARIATION_METADATA)
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_LICENCE = re.compile(r"^license:[ \t]*(\S+)[ \t]*$", re.MULTILINE)


def read_subject(chain: Chain, phase: str, target: Target, base: Path | None) -> TrainedPhase:
    """A finished phase as it can be exported, asked and evaluated, its adapters verified again.

    Args:
        base: folder of the base model; None: the one that the server on this machine has.

    Raises:
        NotNow, InputError, AdapterRefused: see `finished` and `base_folder`.
    """
    states = read_states(chain.root, Key(target.name, chain.owner, chain.name))
    links = finished(chain, states, phase)
    folder = base_folder(chain, target, base, links)
    for file in sorted(folder.glob("*.json")):
        read_json(file)  # damage is named now, not by whichever library meets it first
    last, parts = chain.phase(phase), []
    for link in links:
        built_on, recorded = chain.phase(link.phase), link.recorded
        adapter = Adapter(link.phase, recorded.kind, recorded.ref, link.folder, link.sha256, link.bytes)
        told = link.result.told if link.result is not None else {}
        origins = [source.origin for source in built_on.data.sources]
        parts.append(Part(adapter, recorded.version, recorded.adopted, told, built_on.tokens.all, origins))
    return TrainedPhase(
        chain=chain.name,
        phase=phase,
        title=last.title,
        description=last.description,
        system_prompt=last.data.system_prompt,
        base_model=chain.model.source,
        seed=chain.seed,
        pad={"token": chain.model.eos_token, "id": chain.model.eos_id},
        lora=last.lora.model_dump(),
        quantization=last.training.quantization,
        parts=parts,
        base=folder,
        work=chain.root / WORK,
    )


@dataclass(frozen=True)
class ExportContent:
    """The files of one version.

    Attributes:
        files: name -> (bytes, sha256).
        card: the model card, without the header that Hugging Face reads.
        licence: the header's word for the licence; "" where it is unknown.
    """

    folder: Path
    files: Mapping[str, tuple[int, str]]
    card: str
    licence: str

    @property
    def bytes(self) -> int:
        return sum(size for size, _ in self.files.values())

    @property
    def sha256(self) -> str:
        """Of names and contents: two versions with this hash hold the same files."""
        lines = "".join(f"{name}\0{digest}\n" for name, (_, digest) in sorted(self.files.items()))
        return hashlib.sha256(lines.encode()).hexdigest()

    @property
    def paths(self) -> list[Path]:
        """The files, in the order of their names."""
        return [self.folder / name for name in sorted(self.files)]


def read_content(chain: Chain, links: Sequence[Link], form: str, kind: str, folder: Path) -> ExportContent:
    """The export in a folder, after every file was hashed. The card may have been edited: it asks for that.

    Raises:
        InputError: it is not an export, was made of something else, or was changed.
    """
    if not (folder / EXPORT_MANIFEST).is_file():
        raise InputError(
            f"{folder} exists, and is not an export of kchain", "move it away: `kchain publish` makes its own"
        )
    manifest = read_json(folder / EXPORT_MANIFEST)
    if not isinstance(manifest.get("files"), dict):
        raise _stale(f"{folder / EXPORT_MANIFEST} lists no files")
    due = {
        "format": form,
        "type": kind if form == "gguf" else None,
        "phase": links[-1].phase,
        "base_model": chain.model.source,
        "lineage": [{"phase": link.phase, "sha256": link.sha256} for link in links],
    }
    for key, value in due.items():
        if manifest.get(key) != value:
            raise _stale(f"{folder} was made of something else: its {key.replace('_', ' ')} is not the phase's now")
    paths = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    files = {path.name: (path.stat().st_size, hash_file(path)) for path in paths if path.name not in _BESIDE}
    for name, told in manifest["files"].items():
        if name != CARD and (name not in files or files[name][1] != told["sha256"]):
            raise _stale(f"{folder / name} is not what was exported")
    card = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
    front = _FRONT.match(card)
    found = _LICENCE.search(front[1] if front else "")
    licence = "" if found is None or found[1] == "unknown" else found[1]
    return ExportContent(folder, files, card[front.end() :] if front else card, licence)


def _stale(what: str) -> InputError:
    return InputError(what, "delete the folder: `kchain publish` makes it again")
