"""A dropped file as examples of a phase: its columns mapped, its rows as the JSON lines that travel, and its run.

The run is the phase as it is, on this file: a phase of its own, so that the named one keeps its kernel, result and
children.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from kchain.data.check import USUAL, check_phase, usual
from kchain.errors import InputError
from kchain.inbox.box import SHORT_HASH
from kchain.orchestrator.driving.continuation import content_slug
from kchain.phases import Chain, Phase, Source
from kchain.phases.data import RECIPES
from kchain.phases.load import PROJECT_FILE_LIMIT
from kchain.phases.values import Column
from kchain.runtime.data import SHOWN
from kchain.runtime.examples import MISSING, lookup, text
from kchain.runtime.lots import alternatives
from kchain.runtime.readers import Broken, rows

# Characters of an unusable line that travel, so that the notebook counts it, too.
_BROKEN = 2000
# Characters of the phase's title, so that the whole has the 50 that Kaggle takes.
_TITLE = 33
# Gates that ask about the validation set.
_OF_VALIDATION = ("min_token_accuracy", "max_eval_loss", "min_eos_rate", "min_style_separation")
# The source of a run: a phase's own are not used.
SOURCE = "inbox"


@dataclass(frozen=True)
class Rejection:
    """Why a file gives no adapter: what is wrong, and what to do.

    Attributes:
        ran: it was trained on, and that failed.
    """

    wrong: str
    cure: str
    ran: bool = False


@dataclass(frozen=True)
class Written:
    """What became of the rows of a file.

    Attributes:
        seen: the columns that rows have, of those that a mapping may name.
        names: the columns of the first row.
        broken: the first lines that are not objects, each with its fault.
    """

    seen: frozenset[str]
    names: tuple[str, ...]
    broken: tuple[str, ...]


def write_lines(path: Path, to: Path, phase: Phase) -> Written:
    """Write the rows of a file as JSON lines, one where its row stood.

    A line that is not an object becomes a JSON text: the notebook counts it as broken, like the check here.

    Raises:
        Stop: the file is damaged as a whole.
    """
    columns = [column for source in phase.data.sources for column in source.fields.values()]
    missing, seen = {name for column in columns for name in alternatives(column)} | set(USUAL), set[str]()
    names: tuple[str, ...] = ()
    broken: list[str] = []
    to.parent.mkdir(exist_ok=True)
    with to.open("wb") as file:
        at = 0
        for number, row in rows(path):
            file.write(b"\n" * (number - at - 1))
            at = number
            if isinstance(row, Broken):
                broken += [f"line {number}: {row.reason[:200]}"] if len(broken) < SHOWN else []
                file.write(_encoded(text(row.raw[:_BROKEN])))
                continue
            file.write(_encoded(row))
            names = names or tuple(row)
            found = {column for column in missing if lookup(row, column) is not MISSING}
            seen |= found
            missing -= found
        file.flush()
        os.fsync(file.fileno())
    return Written(frozenset(seen), names, tuple(broken))


def mapping(phase: Phase, written: Written) -> dict[str, Column]:
    """recipe field = column, for a file with such columns.

    As in the first source of the phase whose needed columns it has, files of the project before others; else by usual
    names.

    Raises:
        InputError: neither fits.
    """
    ways, seen = RECIPES[phase.data.recipe][0], written.seen
    for source in sorted(phase.data.sources, key=lambda source: not source.kind.travels):
        fields = {
            field: column
            for field, column in source.fields.items()
            if any(name in seen for name in alternatives(column))
        }
        if any(way <= set(fields) for way in ways):
            return fields
    guessed = usual(phase.data.recipe, seen)
    if guessed is None:
        has = f"its columns: {', '.join(written.names)}" if written.names else "it has no row that can be read"
        need = " or ".join(" + ".join(sorted(way, reverse=True)) for way in ways)
        raise InputError(
            "\n".join(
                [f"no columns that {phase.name} learns from (recipe {phase.data.recipe}); {has}", *written.broken]
            ),
            f"give its rows the columns of a source of {phase.file.as_posix()}, or: {need}",
        )
    return dict(guessed)


def check(chain: Chain, phase: str, path: Path) -> Rejection | str:
    """Check a file as `kchain data check` and the notebook do: why it is rejected, or what there is to learn from."""
    try:
        found = check_phase(chain, phase, {SOURCE: path}, False, None)
    except InputError as error:
        return Rejection(error.message, "correct the file and put it into inbox/ again")
    if not found.problems:
        # A good file may be too small: its run would miss gates for want of validation examples, after hours.
        gates = chain.phase(phase).gates
        asked = [f"gates.{gate}" for gate in _OF_VALIDATION if getattr(gates, gate) is not None]
        if asked and not found.found["validation"]:
            return Rejection(
                f"no example could be held out for validation, which {', '.join(asked)} of {phase} need",
                "put more rows into the file, and the file into inbox/ again",
            )
        counts = found.found
        capped = sum(source["capped"] for source in counts["sources"])
        left_out = f"; {capped:,} more are left out by data.max_examples or max_validation" if capped else ""
        return f"{counts['train']:,} training examples, {counts['validation']:,} for validation{left_out}"
    shown = [f"{row['file']} line {row['line']}: {row['reason'][:200]}" for row in found.rejected[:SHOWN]]
    for fault, about in found.found["faults"].items():
        if fault != "broken" and about["share"] > found.most.get(fault, 1.0):
            shown += [f"{fault}: {one['prompt'][:80]!r} -> {one['answer'][:80]!r}" for one in about["shown"]]
    return Rejection(
        "\n".join([*found.problems, *shown]),
        "take those rows out and put the file into inbox/ again; where your data is meant to be so, raise what "
        "[data.quality] of the phase allows",
    )


def _encoded(value: object) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # Half of a surrogate pair has no UTF-8; as an escape it can travel.
        return json.dumps(value).encode() + b"\n"


@dataclass(frozen=True)
class Run:
    """A run of a phase on one file.

    Attributes:
        chain: the chain with one phase more.
        name: of that phase.
        dataset: the private data set that the file travels in; empty where it stands in the notebook.
    """

    chain: Chain
    name: str
    dataset: str


def run_name(phase: str, sha256: str) -> str:
    """What the journal calls the run of a phase on a file."""
    return f"{phase}-inbox-{sha256[:SHORT_HASH]}"


def title_of(title: str, phase: str, sha256: str) -> str:
    """The title of such a run, of which its kernel's address is made.

    Its digits are of phase and file, since of two phases' titles the first letters may be the same.
    """
    digits = hashlib.sha256(f"{phase} {sha256}".encode()).hexdigest()[:SHORT_HASH]
    return f"{title[:_TITLE].rstrip()} inbox {digits}"


def derive(chain: Chain, phase: str, sha256: str, lines: Path, fields: dict[str, Column]) -> Run:
    """The run of a phase on a file.

    Args:
        sha256: of the file as it was dropped.
        lines: its rows as JSON lines.
        fields: recipe field = column.
    """
    # The notebook is sent as ASCII, where a letter beyond that takes six bytes or more; its other cells take a quarter
    # of the MiB that Kaggle allows.
    is_small = lines.stat().st_size <= PROJECT_FILE_LIMIT
    if is_small and len(json.dumps(text := lines.read_text(encoding="utf-8"))) <= 2 * PROJECT_FILE_LIMIT:
        # ASCII, the name is a file's in the notebook: whatever the dropped file was called.
        source = Source(name=SOURCE, file=f"inbox/{lines.name}", fields=fields)
        files = {**chain.files, f"inbox/{lines.name}": text}
        return _run(chain, phase, sha256, source, files, "")
    ref = f"{chain.owner}/{content_slug(f'{chain.name}-inbox', sha256)}"
    source = Source.model_validate({"name": SOURCE, "dataset": ref, "file": lines.name, "fields": fields})
    return _run(chain, phase, sha256, source, dict(chain.files), ref)


def _run(chain: Chain, phase: str, sha256: str, source: Source, files: dict[str, str], dataset: str) -> Run:
    base = chain.phase(phase)
    name = run_name(phase, sha256)
    title = title_of(base.title, phase, sha256)
    made = replace(base, name=name, title=title, data=base.data.model_copy(update={"sources": (source,)}))
    return Run(replace(chain, phases=(*chain.phases, made), files=files), name, dataset)
