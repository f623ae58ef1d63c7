"""The mix a phase learns from: sources read, filtered, de-duplicated, drawn, shuffled, capped and split.

Every row of a source is accounted for: read = kept + filtered + broken + duplicates + capped. What is drawn and what is
kept aside is decided by the content of each example and the seed, never by its place: see `lots`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .examples import MISSING, Example, Row, Unusable, make_example, text
from .failure import Stop, emit, explain
from .files import write_text
from .lots import LOTS, Draw, Entry, Lottery, alternatives, condition, fingerprint, pick, said
from .paths import Paths
from .readers import READERS, SOURCES, Broken, kind, rows

SHOWN = 3  # broken rows of a source that are shown
REJECTED = "rejected.jsonl"
ASIDE = 1000  # broken rows of a source that are kept aside ...
ASIDE_CHARACTERS = 2000  # ... and how much of each
MANY = 0.2  # of max_validation: more examples on neither side are worth a word
COUNTS = ("read", "kept", "filtered", "broken", "duplicates", "capped")
Tell = Callable[..., None]
LISTED = 20  # files of a data set that a message names


@dataclass
class Report:
    """What became of the rows of a source.

    Attributes:
        read: all of them: the sum of the others.
        kept: in the mix, to learn from or to judge by.
        filtered: did not meet a condition.
        broken: could not be read, or gave no example.
        duplicates: say the same as one that is kept.
        capped: usable, but not drawn: limit, max_examples or max_validation.
        error: why the source failed as a whole; then all that was read counts as broken.
        rejected: the broken rows, with place and reason; the first ASIDE of them.
    """

    name: str
    read: int = 0
    kept: int = 0
    filtered: int = 0
    broken: int = 0
    duplicates: int = 0
    capped: int = 0
    error: str | None = None
    rejected: list[dict[str, Any]] = field(default_factory=list)

    def add(self, count: str, number: int = 1) -> None:
        """Raises one of COUNTS."""
        setattr(self, count, getattr(self, count) + number)

    def reject(self, file: str, line: int, reason: str, raw: str) -> None:
        """Counts a broken row and keeps it aside."""
        self.broken += 1
        if len(self.rejected) < ASIDE:
            row = text(raw[:ASIDE_CHARACTERS].rstrip("\r\n"))
            self.rejected.append({"source": self.name, "file": file, "line": line, "reason": reason, "row": row})

    def fail(self, reason: str) -> None:
        """The source is of no use: nothing of it is in the mix."""
        self.error = reason
        self.broken, self.kept, self.filtered, self.duplicates, self.capped = self.read, 0, 0, 0, 0

    def counts(self) -> dict[str, Any]:
        """The figures and the error."""
        return {name: getattr(self, name) for name in ("name", *COUNTS, "error")}


@dataclass(frozen=True)
class Mix:
    """Examples to train on and to judge by, and one report per source."""

    train: list[Example]
    validation: list[Example]
    reports: list[Report]


def load(paths: Paths, data: dict[str, Any], seed: int, tell: Tell = emit) -> Mix:
    """Reads every source and mixes what is kept; the same seed gives the same mix. Broken rows go to `rejected.jsonl`.

    Raises:
        Stop: a source that is not optional failed, or nothing is left.
    """
    reports = [Report(source["name"]) for source in data["sources"]]
    try:
        drawn = [_load_source(paths, data, number, seed, report) for number, report in enumerate(reports)]
        train, validation = _mix(drawn, data, seed, reports, tell)
    finally:
        _tell(reports, tell)
        lines = [json.dumps(row, ensure_ascii=False) for report in reports for row in report.rejected]
        if lines:
            write_text(paths.working / REJECTED, "\n".join(lines) + "\n")
    if not train:
        raise Stop("no source gave an example to train on", "correct the sources' fields and conditions")
    return Mix(train, validation, reports)


def _tell(reports: list[Report], tell: Tell) -> None:
    for report in reports:
        tell("source", **report.counts())
        for row in report.rejected[:SHOWN]:
            place = f"{row['file']} line {row['line']}"
            tell("warning", message=f"source {report.name}, {place} left out: {row['reason'][:200]}")


def _load_source(paths: Paths, data: dict[str, Any], number: int, seed: int, report: Report) -> Draw:
    """What is drawn from one source; nothing from an optional one that failed."""
    source = data["sources"][number]
    try:
        drawn = _draw(paths, data, number, seed, report)
        if not drawn.drawn():
            left = f"{report.filtered} did not meet the conditions, {report.broken} gave no example"
            reason = f"none of {report.read} rows could be used: {left}"
            raise Stop(reason, "correct the source's fields and conditions")
    except Exception as error:  # whatever a reader raises is this source's failure, and is reported
        reason, cure = explain(error)
        report.fail(reason)
        if not source.get("optional"):
            raise Stop(f"source {source['name']}: {reason}", f"{cure}; or mark the source optional = true") from error
        return Draw(0)
    return drawn


def _draw(paths: Paths, data: dict[str, Any], number: int, seed: int, report: Report) -> Draw:
    """At most `limit` of a source's examples, each equally likely; without a limit those the mix would draw."""
    source = data["sources"][number]
    own = seed if source.get("seed") is None else source["seed"]
    limit = source.get("limit")
    lottery = Lottery(f"mix/{seed}" if limit is None else f"source/{source['name']}/{own}")
    drawn = Draw(data["max_examples"] if limit is None else limit)
    how = data["deduplicate"]
    for example in _examples(paths, source, data, report):
        key = fingerprint(example, exact=how == "exact")
        if how == "none":  # a key of its own for every row: then no two are duplicates
            key += f"{number}/{report.read}".encode()
        lost = drawn.offer(lottery.lot(key), key, Entry(example, number))
        report.add(lost or "kept")
    return drawn


def _mix(
    drawn: list[Draw], data: dict[str, Any], seed: int, reports: list[Report], tell: Tell
) -> tuple[list[Example], list[Example]]:
    """Examples to train on, in the order of their lots, and to judge by."""
    mixed, everything = Draw(data["max_examples"]), Lottery(f"mix/{seed}")
    offered = [(key, entry) for one in drawn for key, entry in one.drawn()]
    for key, entry in offered:
        if mixed.offer(everything.lot(key), key, entry) == "duplicates":
            reports[entry.source].duplicates += 1
    entries = [entry for _, entry in mixed.drawn()]
    train, validation = split(entries, data["validation"], data["max_validation"], seed)
    held = len(entries) - len(train) - len(validation)
    if held > MANY * data["max_validation"]:
        tell(
            "warning",
            message=f"{held} examples are used for neither training nor validation: lower data.validation",
        )
    _count(reports, offered, train + validation)
    return [entry.example for entry in train], [entry.example for entry in validation]


def _count(reports: list[Report], offered: list[tuple[bytes, Entry]], used: list[Entry]) -> None:
    """What each source lost after it was drawn."""
    for number, report in enumerate(reports):
        report.kept = sum(entry.source == number for entry in used)
        if report.error is None:
            report.capped = report.read - report.kept - report.filtered - report.broken - report.duplicates


def split(entries: list[Entry], share: float, most: int, seed: int) -> tuple[list[Entry], list[Entry]]:
    """Entries to train on and to judge by, as their content says: who is on one side stays there when others come.

    With more than `most` on the side to judge by, the rest of them is on neither side, since it may be judged by when
    others go. One exception: when no lot falls on that side, one entry is put there, and one always stays to train on.
    """
    lottery = Lottery(f"split/{seed}")
    lots = {id(entry): lottery.lot(said(entry.example)) for entry in entries}
    by_lot = sorted(entries, key=lambda entry: lots[id(entry)])
    aside = sum(lots[id(entry)] < share * LOTS for entry in entries)
    if share and len(entries) > 1:
        aside = min(max(aside, 1), len(entries) - 1)
    apart = {id(entry) for entry in by_lot[:aside]}
    return [entry for entry in entries if id(entry) not in apart], by_lot[: min(aside, most)]


def _examples(paths: Paths, source: dict[str, Any], data: dict[str, Any], report: Report) -> Iterator[Example]:
    """Rows that meet every condition, as examples. A column that no row has is an error: it is a slip of the pen."""
    tests = [condition(spec) for spec in source.get("where") or ()]
    fields = {name: alternatives(column) for name, column in source["fields"].items()}
    unseen = {alternatives(spec["column"]) for spec in source.get("where") or ()} | set(fields.values())
    names: list[str] = []
    for file, number, row in _rows(paths, source):
        report.read += 1
        if isinstance(row, Broken):
            report.reject(file, number, row.reason, row.raw)
            continue
        names = names or list(row)
        if unseen:
            unseen = {columns for columns in unseen if pick(row, columns) is MISSING}
        if not all(holds(row) for holds in tests):
            report.filtered += 1
            continue
        try:
            values = {"style": source.get("style")}
            values |= {name: pick(row, columns) for name, columns in fields.items()}
            yield make_example(values, data["recipe"], data["system_prompt"])
        except Unusable as error:
            report.reject(file, number, str(error), json.dumps(row, ensure_ascii=False, default=str))
    if unseen and names:
        missing = ", ".join(sorted(" or ".join(columns) for columns in unseen))
        raise Stop(f"no row has the column {missing}", f"it has {', '.join(names)}")


def _rows(paths: Paths, source: dict[str, Any]) -> Iterator[tuple[str, int, Row | Broken]]:
    """File, line and row."""
    if read := SOURCES.get(source["kind"]):
        for number, row in read(source):
            yield source[source["kind"]], number, row
        return
    for path in source_files(paths, source):
        for number, row in rows(path):
            yield path.name, number, row


def source_files(paths: Paths, source: dict[str, Any]) -> list[Path]:
    """The files of a source that has no reader of its own, in the order of their names.

    Raises:
        Stop: the data set is not mounted, or there is no such file.
    """
    if source["kind"] == "path":  # of this machine: `kchain data check`
        place = Path(source["place"])
        return [place] if place.is_file() else find_files(place, source["file"], source["split"])
    if source["kind"] == "project":
        return find_files(paths.scratch / "project", source["file"], None)
    return find_files(paths.mount("dataset", source["dataset"]), source["file"], source["split"])


def find_files(folder: Path, name: str | None, split: str | None) -> list[Path]:
    """The file of that name, or those that a pattern with * fits; without a name those of the split, or the only one.

    Raises:
        Stop: there is no such file, or without a name and a split none or several; says which there are.
    """
    if name is not None and (folder / name).is_file():
        return [folder / name]
    readable = _readable(folder)
    if name is not None:
        found = sorted(folder.glob(name)) if "*" in name else []
    elif split is not None:
        found = [path for path in readable if split.lower() in _words(path.relative_to(folder))] or readable[:1] * (
            len(readable) == 1
        )
    else:
        found = readable if len(readable) == 1 else []
    found = [path for path in found if path.is_file()]
    if not found:
        raise _absent(folder, name, split, readable)
    return found


def _words(path: Path) -> list[str]:
    """The words of a path: data/train-00000-of-00002.parquet has data, train and some more."""
    return re.split(r"[^a-z0-9]+", str(path).lower()) + [path.name.lower().split(".")[0]]


def _absent(folder: Path, name: str | None, split: str | None, readable: list[Path]) -> Stop:
    there = [str(path.relative_to(folder)) for path in readable]
    there = there or (sorted(path.name for path in folder.iterdir()) if folder.is_dir() else [])
    more = f" and {len(there) - LISTED} more" if len(there) > LISTED else ""
    listed = f"there is {', '.join(there[:LISTED]) or 'nothing'}{more}"
    if name is not None:
        reason = f"there is no file {folder / name}; {listed}"
        return Stop(reason, "correct the source's file; upper and lower case count")
    if readable and split is not None:
        return Stop(
            f"no file of {folder} is named after the split {split}; {listed}", "set file or split in the source"
        )
    found = "several files that can be read" if readable else f"no file that can be read ({', '.join(READERS)})"
    return Stop(
        f"the source names no file, and {folder} holds {found}: {listed}", "set file in the source to one of them"
    )


def _readable(folder: Path) -> list[Path]:
    """What READERS can read, at most one level deep: Kaggle's mounts are slow to walk. Hidden files do not count."""
    paths = (path for pattern in ("*", "*/*") for path in folder.glob(pattern))
    return sorted(path for path in paths if kind(path) in READERS and path.name[0] != "." and path.is_file())
