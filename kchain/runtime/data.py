"""The mix a phase learns from: sources read, filtered, sampled, shuffled, capped and split."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .events import emit
from .examples import MISSING, Example, Row, Unusable, condition, lookup, make_example
from .failure import Stop, explain
from .paths import Paths
from .readers import find_file, huggingface, rows

SHOWN = 3  # unusable rows of a source that are shown


@dataclass
class Report:
    """What became of a source: rows read, kept (in the mix), skipped (unusable), and why it failed as a whole."""

    name: str
    read: int = 0
    kept: int = 0
    skipped: int = 0
    error: str | None = None
    shown: list[str] = field(default_factory=list)

    def skip(self, why: str) -> None:
        """Counts an unusable row, and keeps the first few reasons."""
        self.skipped += 1
        if len(self.shown) < SHOWN:
            self.shown.append(why[:200])

    def counts(self) -> dict[str, Any]:
        """The figures, without the examples of unusable rows."""
        return {name: getattr(self, name) for name in ("name", "read", "kept", "skipped", "error")}


@dataclass(frozen=True)
class Mix:
    """Examples to train on and to judge by, and one report per source."""

    train: list[Example]
    validation: list[Example]
    reports: list[Report]


def load(paths: Paths, data: dict[str, Any], seed: int) -> Mix:
    """Reads every source and mixes what is kept; the same seed gives the same mix.

    Raises:
        Stop: a source that is not optional failed, or nothing is left.
    """
    reports: list[Report] = []
    examples: list[Example] = []
    for source in data["sources"]:
        report = Report(source["name"])
        reports.append(report)
        examples += _load_source(paths, source, data, seed, report)
    random.Random(seed).shuffle(examples)
    del examples[data["max_examples"] :]
    kept_aside = min(data["max_validation"], int(len(examples) * data["validation"]))
    if data["validation"] and not kept_aside and len(examples) > 1:
        kept_aside = 1
    if len(examples) <= kept_aside:
        raise Stop("no source gave an example to train on", "correct the sources' fields and conditions")
    return Mix(examples[kept_aside:], examples[:kept_aside], reports)


def source_file(paths: Paths, source: dict[str, Any]) -> Path:
    """The file of a source that is a Kaggle data set or lies in the project.

    Raises:
        Stop: the data set is not mounted, or the file is not to be found.
    """
    folder = paths.mount("dataset", source["dataset"]) if source["kind"] == "dataset" else paths.scratch / "project"
    return find_file(folder, source["file"])


def _load_source(
    paths: Paths, source: dict[str, Any], data: dict[str, Any], seed: int, report: Report
) -> list[Example]:
    """The examples of one source; none from an optional one that failed."""
    examples: list[Example] = []
    try:
        examples = _sample(_examples(paths, source, data, report), source.get("limit"), f"{seed}/{source['name']}")
        if not examples:
            raise Stop(f"none of {report.read} rows could be used", "correct the source's fields and conditions")
    except Exception as error:  # whatever a reader raises is this source's failure, and is reported
        reason, cure = explain(error)
        report.error, examples = reason, []
        if not source.get("optional"):
            raise Stop(f"source {source['name']}: {reason}", f"{cure}; or mark the source optional = true") from error
    finally:
        report.kept = len(examples)
        emit("source", **report.counts())
        for why in report.shown:
            emit("warning", message=f"source {report.name}, row left out: {why}")
    return examples


def _examples(paths: Paths, source: dict[str, Any], data: dict[str, Any], report: Report) -> Iterator[Example]:
    """Rows that meet every condition, as examples. A column that no row has is an error: it is a slip of the pen."""
    conditions = [(spec["column"], condition(spec)) for spec in source.get("where") or ()]
    unseen = {column for column, _ in conditions} | set(source["fields"].values())
    columns: list[str] = []
    for row in _rows(paths, source, report):
        report.read += 1
        columns = columns or list(row)
        if unseen:
            unseen = {column for column in unseen if lookup(row, column) is MISSING}
        if not all(holds(row) for _, holds in conditions):
            continue
        values = {"style": source.get("style")}
        values |= {name: lookup(row, column) for name, column in source["fields"].items()}
        try:
            yield make_example(values, data["recipe"], data["system_prompt"])
        except Unusable as error:
            report.skip(f"row {report.read}: {error}")
    if unseen and columns:
        raise Stop(f"no row has the column {', '.join(sorted(unseen))}", f"it has {', '.join(columns)}")


def _rows(paths: Paths, source: dict[str, Any], report: Report) -> Iterator[Row]:
    def broken(why: str) -> None:
        report.read += 1
        report.skip(why)

    if source["kind"] == "huggingface":
        return huggingface(source["huggingface"], source.get("subset"), source.get("split") or "train")
    return rows(source_file(paths, source), broken)


def _sample(examples: Iterator[Example], limit: int | None, seed: str) -> list[Example]:
    """At most `limit` of the examples, each equally likely; holds no more than that in memory (reservoir sampling)."""
    if limit is None:
        return list(examples)
    chance = random.Random(seed)
    kept: list[Example] = []
    for number, example in enumerate(examples):
        if number < limit:
            kept.append(example)
        elif (place := chance.randrange(number + 1)) < limit:
            kept[place] = example
    return kept
