"""Examine examples on this machine as the notebook would: a phase whose sources are here, or any file."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kchain.data.guess import guess
from kchain.errors import InputError
from kchain.phases import Chain, Quality
from kchain.runtime import data, quality
from kchain.runtime.data import Mix
from kchain.runtime.examples import Example
from kchain.runtime.failure import Stop
from kchain.runtime.paths import Paths
from kchain.server.publish import dataset_folder
from kchain.templates.parameters import data_table

SEED = 42  # of a file that belongs to no chain
MOST = 100_000  # examples of a file that are looked at, drawn from all of it
SERVER = Path(".kchain") / "local"
Measure = Callable[[list[Example]], quality.Tokens]


@dataclass(frozen=True)
class Checked:
    """What was found in a phase's or a file's examples.

    Attributes:
        found: see `runtime.quality.examine`.
        most: share of each fault that is allowed.
        absent: sources of the phase that are not on this machine, and so were not looked at.
        rejected: rows that could not be used: source, file, line, reason, row.
    """

    name: str
    found: dict[str, Any]
    most: Mapping[str, float]
    absent: tuple[str, ...] = ()
    rejected: list[dict[str, Any]] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """What is above its threshold, in words."""
        return quality.problems(self.found, self.most)

    def as_dict(self) -> dict[str, Any]:
        """For `kchain data check --json`."""
        return {
            "name": self.name,
            "passed": not self.problems,
            "problems": self.problems,
            "allowed": dict(self.most),
            "absent": list(self.absent),
            **self.found,
        }


def check_phase(
    chain: Chain, phase: str, places: Mapping[str, Path], download: bool, measure: Measure | None
) -> Checked:
    """Look at the sources of a phase that are on this machine.

    Args:
        places: file or folder of a source, by the source's name.
        download: fetch data sets of Hugging Face; copies of others are among the places.
        measure: lengths in tokens.

    Raises:
        InputError: there is no such phase or source, the phase trains nothing, no source is here, or one that must not
            fail did.
    """
    if chain.phase(phase).use is not None:
        raise InputError(f"{phase} trains nothing: it has no sources", f"look at those of {chain.phase(phase).after}")
    table = data_table(chain.phase(phase))
    files = {source.name: source.file for source in chain.phase(phase).data.sources if source.kind == "project"}
    own = {name: chain.root / file for name, file in files.items() if file}
    found = {source["name"]: _here(chain.root, source, {**own, **places}, download) for source in table["sources"]}
    if unknown := sorted(set(places) - set(found)):
        raise InputError(f"{phase} has no source {', '.join(unknown)}", f"its sources: {', '.join(found)}")
    here = [source for source in found.values() if source]
    absent = tuple(name for name, source in found.items() if not source)
    if not here:
        raise InputError(
            f"{phase}: no source is on this machine: {', '.join(absent)}",
            f"give a copy: --with {absent[0]}=PATH, or fetch it: --download",
        )
    mix = _load({**table, "sources": here}, chain.seed)
    return _checked(phase, mix, measure, table["quality"], absent)


def check_file(path: Path, fields: Mapping[str, str], validation: Path | None, measure: Measure | None) -> Checked:
    """Look at a file of this machine.

    Args:
        fields: recipe field = column; empty: usual names are tried.
        validation: a second file with the examples to judge by.

    Raises:
        InputError: a file cannot be read, or nothing tells what its columns are.
    """
    mix = _load_file(path, fields)
    if validation is not None:
        other = _load_file(validation, fields)
        mix = Mix(mix.train, other.train, mix.reports + other.reports)
    return _checked(str(path), mix, measure, Quality().model_dump(), ())


def _checked(
    name: str, mix: Mix, measure: Measure | None, most: Mapping[str, float], absent: tuple[str, ...]
) -> Checked:
    try:
        tokens = measure(mix.train + mix.validation) if measure else None
    except Stop as stop:
        raise InputError(stop.reason, stop.cure) from stop
    rejected = [row for report in mix.reports for row in report.rejected]
    return Checked(name, quality.examine(mix, tokens), most, absent, rejected)


def _here(root: Path, source: Mapping[str, Any], places: Mapping[str, Path], download: bool) -> dict[str, Any] | None:
    """The source as it can be read on this machine; None where it cannot."""
    if source["name"] in places:
        return {**source, "kind": "path", "place": str(places[source["name"]])}
    if source["kind"] == "huggingface":
        return dict(source) if download else None
    versions = dataset_folder(root / SERVER, *source["dataset"].split("/"))
    numbers = [int(entry.name) for entry in versions.glob("*") if entry.name.isdigit()]
    return {**source, "kind": "path", "place": str(versions / str(max(numbers)))} if numbers else None


def _load_file(path: Path, fields: Mapping[str, str]) -> Mix:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        recipe, columns = guess(path, fields)
    except Stop as stop:
        raise InputError(stop.reason, stop.cure) from stop
    source = {"name": path.name, "kind": "path", "place": str(path), "file": None, "split": None, "fields": columns}
    table = {
        "recipe": recipe,
        "system_prompt": "",
        "max_examples": MOST,
        "validation": 0.0,
        "max_validation": 1,
        "deduplicate": "normalized",
        "sources": [source],
    }
    return _load(table, SEED, "say which column is what: --field prompt=COLUMN --field completion=COLUMN")


def _load(table: dict[str, Any], seed: int, cure: str | None = None) -> Mix:
    with tempfile.TemporaryDirectory(prefix="kchain-data-") as folder:
        place = Path(folder)
        try:
            return data.load(Paths(place, place, place), table, seed, tell=lambda event, **fields: None)
        except Stop as stop:
            aside = place / data.REJECTED
            lines = aside.read_text(encoding="utf-8").split("\n") if aside.is_file() else []
            rows = [json.loads(line) for line in lines if line]
            first = [f"{row['file']} line {row['line']}: {row['reason'][:200]}" for row in rows[: data.SHOWN]]
            raise InputError("\n".join([stop.reason, *first]), cure or stop.cure) from stop
