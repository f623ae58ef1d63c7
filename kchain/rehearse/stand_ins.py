"""What stands in for the sources of a chain: the project's own files, files named for a rehearsal, or invented rows."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kchain.errors import InputError
from kchain.phases import Chain, Phase, Source
from kchain.rehearse.rows import columns_of, invent
from kchain.rehearse.settings import Stand, share_of
from kchain.runtime.readers import READERS, kind
from kchain.server.publish import publish_dataset

OWNER = "rehearsal"
# Invented rows for each that is used: drawing a sample is rehearsed, too.
SPARE = 2


@dataclass(frozen=True)
class StandIn:
    """A stand-in with its content: a file that is there, or a text."""

    stand: Stand
    file: Path | None = None
    text: str = ""


def stand_ins(chain: Chain, names: Sequence[str]) -> list[StandIn]:
    """A stand-in for every source of these phases.

    Raises:
        InputError: a named file cannot be read, or no rows can be invented that a source would use.
    """
    return [_stand_in(chain, phase, source) for phase in map(chain.phase, names) for source in phase.data.sources]


def publish(root: Path, prepared: Sequence[StandIn]) -> None:
    """Put the stand-ins into a server's folder as data sets; the same content again changes nothing."""
    for each in prepared:
        if not each.stand.ref:
            continue
        with tempfile.TemporaryDirectory(prefix="kchain-rehearsal-") as folder:
            path = Path(folder) / each.stand.file
            if each.file is not None:
                shutil.copyfile(each.file, path)
            else:
                path.write_text(each.text, encoding="utf-8")
            publish_dataset(root, each.stand.ref, Path(folder))


def _stand_in(chain: Chain, phase: Phase, source: Source) -> StandIn:
    ref = f"{OWNER}/{phase.name}-{source.name}"
    if source.rehearsal is not None:
        path = _named(chain, phase, source, source.rehearsal)
        file = f"{_short_hash(path.read_bytes())}{kind(path)}"  # gzip or not: readers look inside
        return StandIn(Stand(phase.name, source.name, "yours", ref, file, source.rehearsal), file=path)
    if source.kind == "project":
        return StandIn(Stand(phase.name, source.name, "project", words=str(source.file)))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _invented(phase, source))
    columns = ", ".join(columns_of(source))
    file = f"{_short_hash(text.encode())}.jsonl"
    return StandIn(Stand(phase.name, source.name, "invented", ref, file, columns), text=text)


def _named(chain: Chain, phase: Phase, source: Source, name: str) -> Path:
    path = chain.root / name
    where = f"{phase.file}: source {source.name!r}: rehearsal"
    if kind(path) not in READERS:
        raise InputError(f"{where}: {name!r} is no file that a notebook can read", f"one of {', '.join(READERS)}")
    if not path.is_file():
        raise InputError(f"{where}: there is no file {path}", "write the path from the project's folder")
    return path


def _invented(phase: Phase, source: Source) -> list[dict[str, object]]:
    data = phase.data
    try:
        return invent(source, data.recipe, data.system_prompt, SPARE * share_of(phase))
    except ValueError as error:
        raise InputError(
            f"{phase.file}: source {source.name!r}: no rows can be invented for a rehearsal: {error}",
            f'put a few real ones into a file and name it in the source: rehearsal = "samples/{source.name}.jsonl"',
        ) from None


def _short_hash(content: bytes) -> str:
    """Part of the file's name, so that other content makes another bundle and the phase is rehearsed again."""
    return hashlib.sha256(content).hexdigest()[:12]
