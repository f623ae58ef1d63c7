"""Examine examples on this machine as the notebook would: a phase whose sources are here, or any file.

What was found can be written as one page: faults with examples, histograms as SVG, self-contained and without script.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from kchain import __version__, pages
from kchain.errors import InputError, need
from kchain.phases import Chain, Quality
from kchain.runtime import data, quality
from kchain.runtime.contract import TOKENIZER_CONFIG
from kchain.runtime.data import Mix
from kchain.runtime.examples import MISSING, Example, lookup, styles
from kchain.runtime.failure import Stop
from kchain.runtime.paths import Paths
from kchain.runtime.quality import Tokens
from kchain.runtime.readers import Broken, rows
from kchain.server.publish import dataset_folder
from kchain.templates.parameters import data_table

SEED = 42  # of a file that belongs to no chain
MOST = 100_000  # examples of a file that are checked, drawn from all of it
SERVER = Path(".kchain") / "local"
LOOKED_AT = 100  # rows that are searched for columns
# Usual names, the likelier ones first.
MESSAGES = ("messages", "conversations", "conversation")
PROMPTS = ("prompt", "instruction", "question", "query", "ask", "task.description", "input")
ANSWERS = ("completion", "response", "output", "answer", "execution.output", "story")
TEXTS = ("text", "content")
USUAL = (*MESSAGES, *PROMPTS, *ANSWERS, *TEXTS)
# A histogram, in its own units; and the rejected rows that a page shows.
WIDTH, HEIGHT, GAP = 560, 120, 2
REJECTED = 20
Measure = Callable[[list[Example]], Tokens]


@dataclass(frozen=True)
class Checked:
    """What was found in the examples of a phase or a file.

    Attributes:
        found: see `runtime.quality.examine`.
        most: share of each fault that is allowed.
        absent: sources of the phase that are not on this machine, and so were not checked.
        rejected: rows that could not be used: source, file, line, reason, row.
    """

    name: str
    found: dict[str, Any]
    most: Mapping[str, float]
    absent: tuple[str, ...] = ()
    rejected: list[dict[str, Any]] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """Faults above their thresholds, in words."""
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
    """Check the sources of a phase that are on this machine.

    Args:
        places: file or folder of a source, by the source's name.
        download: fetch data sets of Hugging Face; copies of others are among the places.
        measure: lengths in tokens.

    Raises:
        InputError: there is no such phase or source, the phase trains nothing, no source is here, or a required one
            cannot be read.
    """
    if chain.phase(phase).use is not None:
        raise InputError(f"{phase} trains nothing: it has no sources", f"check those of {chain.phase(phase).after}")
    table = data_table(chain.phase(phase))
    own = {source.name: chain.root / source.place for source in chain.phase(phase).data.sources if source.kind.travels}
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
    """Check a file of this machine.

    Args:
        fields: recipe field = column; empty: usual names are tried.
        validation: a second file, with the validation examples.

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
    if not source["dataset"]:
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


def usual(recipe: str, seen: Collection[str]) -> dict[str, str] | None:
    """field = column by usual names, for a recipe and a file that has these columns; None where none is usual."""
    found = (way(seen) for way in WAYS[recipe])
    return next((fields for fields in found if fields), None)


def guess(path: Path, given: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """(recipe, field = column) of a file.

    Args:
        given: fields whose columns are known; they decide where they are enough.

    Raises:
        InputError: no column has a usual name; lists them.
    """
    if given:
        recipe = "conversation" if "messages" in given else "text" if "text" in given else "prompt_completion"
        return recipe, dict(given)
    first = [row for _, row in islice(rows(path), LOOKED_AT) if not isinstance(row, Broken)]
    seen = {name for name in USUAL if any(lookup(row, name) is not MISSING for row in first)}
    for recipe, way in (("conversation", _messages), ("prompt_completion", _pair), ("text", _text)):
        if fields := way(seen):
            return recipe, fields
    names = ", ".join(first[0]) if first else "none that can be read"
    raise InputError(
        f"{path}: its columns have no usual names, so it is unclear which is which: {names}",
        "say it: --field prompt=COLUMN --field completion=COLUMN, or --field messages=COLUMN, or --field text=COLUMN",
    )


def _messages(seen: Collection[str]) -> dict[str, str]:
    found = _first(MESSAGES, seen)
    return {"messages": found} if found else {}


def _pair(seen: Collection[str]) -> dict[str, str]:
    prompt, answer = _first(PROMPTS, seen), _first(ANSWERS, seen)
    if not prompt or not answer:
        return {}
    more = {"context": "input"} if prompt == "instruction" and "input" in seen else {}
    return {"prompt": prompt, "completion": answer, **more}


def _text(seen: Collection[str]) -> dict[str, str]:
    found = _first(TEXTS, seen)
    return {"text": found} if found else {}


def _first(names: tuple[str, ...], seen: Collection[str]) -> str | None:
    return next((name for name in names if name in seen), None)


# Recipe -> what its columns may be, the likelier first.
WAYS = {"text": (_text,), "prompt_completion": (_pair,), "conversation": (_messages, _pair)}


def measure(folder: Path, cap: int, eos: str | None) -> Measure:
    """Counts the tokens of examples.

    Args:
        folder: of a model, or of its tokenizer alone.
        cap: tokens of an example that are kept: training.max_length.
        eos: the token that ends an answer; None: the tokenizer's own.

    Raises:
        InputError: transformers is not installed, or there is no tokenizer in the folder.
    """
    if not (folder / TOKENIZER_CONFIG).is_file():
        raise InputError(f"{folder} holds no tokenizer_config.json", "name a folder with a model or its tokenizer")
    need("train", "transformers")
    from transformers import AutoTokenizer

    from kchain.runtime.chat import Chat, Refused
    from kchain.runtime.encode import encode

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{folder}: no tokenizer can be loaded: {reason}", "fetch the model's files again") from error
    if eos is not None:
        tokenizer.eos_token = eos

    def count(examples: list[Example]) -> Tokens:
        chat = Chat(tokenizer, styles(examples))
        lengths = []
        for example in examples:
            with suppress(Refused):  # the notebook counts those apart
                lengths += [len(each) for each in encode(example, chat)]
        return Tokens(lengths, cap, sum(length > cap for length in lengths))

    return count


def write_page(path: Path, checked: Sequence[Checked]) -> None:
    """Write the page; it is whole or not there.

    Raises:
        InputError: it cannot be written there.
    """
    shown = [_section(one) for one in checked]
    page = pages.render("data", "page.html.jinja", sections=shown, version=__version__, width=WIDTH, height=HEIGHT)
    pages.write(path, page)


def _section(one: Checked) -> dict[str, Any]:
    faults = []
    for name, fault in one.found["faults"].items():
        most = one.most.get(name)
        bad = most is not None and fault["share"] > most
        faults.append({**fault, "name": name, "words": quality.WORDS[name], "most": most, "bad": bad})
    return {
        "name": one.name,
        "problems": one.problems,
        "absent": one.absent,
        "found": one.found,
        "faults": faults,
        "histograms": [
            ("Length of the examples", one.found["lengths"], bars(one.found["lengths"]["histogram"])),
            ("Length of the answers", one.found["answers"], bars(one.found["answers"]["histogram"])),
        ],
        "rejected": one.rejected[:REJECTED],
    }


def bars(histogram: list[list[int]]) -> list[dict[str, Any]]:
    """Rectangles of a histogram, and what a pointer over one is told. A bar that holds anything can be seen."""
    if not histogram:
        return []
    highest = max(count for _, count in histogram)
    step = WIDTH / len(histogram)
    drawn = []
    for number, (upper, count) in enumerate(histogram):
        height = max(2.0, HEIGHT * count / highest) if count else 0.0
        lower = histogram[number - 1][0] if number else 0
        drawn.append(
            {
                "x": round(number * step, 1),
                "y": round(HEIGHT - height, 1),
                "width": round(max(1.0, step - GAP), 1),
                "height": round(height, 1),
                "words": f"{lower:,} to {upper - 1:,}: {count:,}",
            }
        )
    return drawn
