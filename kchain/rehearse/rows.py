"""What stands in for the sources of a chain: the project's own files, files named for a rehearsal, or invented rows.

Invented rows have the columns that a source's mapping and its conditions need.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from kchain.demo.tokenizer import SAMPLES
from kchain.errors import InputError
from kchain.phases import Chain, Condition, Phase, Source
from kchain.rehearse.settings import Stand, share_of
from kchain.runtime.examples import Unusable, lookup, make_example
from kchain.runtime.lots import condition
from kchain.runtime.readers import READERS, kind
from kchain.server.publish import publish_dataset

Row = dict[str, Any]
# Texts of the sample data that are tried for a column until its conditions let one through; and how many together.
TRIES = 40
TOGETHER = (2, 8, 32)
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
    if source.kind.travels:
        return StandIn(Stand(phase.name, source.name, "project", words=source.place))
    try:
        invented = invent(source, phase.data.recipe, phase.data.system_prompt, SPARE * share_of(phase))
    except ValueError as error:
        raise InputError(
            f"{phase.file}: source {source.name!r}: no rows can be invented for a rehearsal: {error}",
            f'put a few real ones into a file and name it in the source: rehearsal = "samples/{source.name}.jsonl"',
        ) from None
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in invented)
    columns = ", ".join(columns_of(source))
    file = f"{_short_hash(text.encode())}.jsonl"
    return StandIn(Stand(phase.name, source.name, "invented", ref, file, columns), text=text)


def _named(chain: Chain, phase: Phase, source: Source, name: str) -> Path:
    path = chain.root / name
    where = f"{phase.file}: source {source.name!r}: rehearsal"
    if kind(path) not in READERS:
        raise InputError(f"{where}: {name!r} is not a file that a notebook can read", f"one of {', '.join(READERS)}")
    if not path.is_file():
        raise InputError(f"{where}: there is no file {path}", "write the path from the project's folder")
    return path


def _short_hash(content: bytes) -> str:
    """Part of the file's name, so that other content makes another bundle and the phase is rehearsed again."""
    return hashlib.sha256(content).hexdigest()[:12]


def invent(source: Source, recipe: str, system_prompt: str, count: int) -> list[Row]:
    """So many rows that the source's conditions let through and that the recipe can use.

    Raises:
        ValueError: its conditions let nothing through that kchain can think of; says which.
    """
    fields = {first(column): name for name, column in source.fields.items()}
    rows: list[Row] = [{} for _ in range(count)]
    for number, row in enumerate(rows):
        for column in columns_of(source):
            tests = [test for test in source.where if first(test.column) == column]
            _put(row, column, _value(column, fields.get(column, ""), tests, number))
        values = {name: lookup(row, first(column)) for name, column in source.fields.items()}
        try:
            make_example(values, recipe, system_prompt)
        except Unusable as error:
            raise ValueError(f"a row that passes the source's conditions gives no example: {error}") from None
    return rows


def columns_of(source: Source) -> list[str]:
    """The columns that a source's rows need, each once."""
    named = [*source.fields.values(), *(test.column for test in source.where)]
    return list(dict.fromkeys(map(first, named)))


def first(column: str | Sequence[str]) -> str:
    """A column; of several to choose from, the first."""
    return column if isinstance(column, str) else column[0]


def _value(column: str, field: str, tests: Sequence[Condition], number: int) -> Any:
    """A value of a column that all its tests let through."""
    holds = [condition({**test.model_dump(), "column": column}) for test in tests]
    for value in _candidates(field, tests, number):
        if all(test({column: value}) for test in holds):
            return value
    given = (test.model_dump(exclude_none=True).items() for test in tests)
    words = (
        ", ".join(
            f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in test if key != "column" and value
        )
        for test in given
    )
    raise ValueError(f"kchain can think of no value for {column} with {' and '.join(words)}")


def _candidates(field: str, tests: Sequence[Condition], number: int) -> Iterator[Any]:
    """What may stand in a column: texts of the sample data, plain, with what a test wants, longer and shorter."""
    wanted = [word for test in tests if not test.negate for word in _wanted(test)]
    words = [word for word in wanted if isinstance(word, str)]
    for attempt in range(TRIES):
        text = _text(field, number + attempt)
        yield text
        yield from (_with(text, word) for word in words)
        yield _with(text, " ".join(words))
        yield from wanted
    if isinstance(text := _text(field, number), str):
        for count in TOGETHER:
            yield _with("\n".join(str(_text(field, number + place)) for place in range(count)), " ".join(words))
        yield from text.split()
    yield from ("", None)


def _wanted(test: Condition) -> list[Any]:
    if test.matches is not None:
        return _guesses(test.matches)
    return [test.equals] if test.equals is not None else [*(test.any_of or test.contains or ())]


def _guesses(pattern: str) -> list[str]:
    """Texts that a simple regular expression may match: its literal parts, one by one and in a row."""
    plain = re.sub(r"\\([dws])", lambda found: {"d": "1", "w": "a", "s": " "}[found[1]], pattern)
    plain = re.sub(r"\\[bBAZ]", "", plain)
    parts = re.findall(r"(?:\\\W|[^\\^$.|?*+()\[\]{}])+", plain)
    parts = [re.sub(r"\\(\W)", r"\1", part) for part in parts]
    return [*parts, "".join(parts), *(f"{part} {part}" for part in parts)]


def _with(value: Any, word: str) -> Any:
    """A text or a conversation that also holds a word."""
    if isinstance(value, str):
        return f"{value} {word}"
    first, *others = value
    return [{**first, "content": f"{first['content']} {word}"}, *others]


def _text(field: str, number: int) -> Any:
    """The content of a recipe's field, taken from the sample data; a row's question and answer belong together."""
    question, answer = _pick(_pairs, number)
    match field:
        case "completion":
            return answer
        case "messages":
            return _pick(_conversations, number)
        case "text":
            return f"{question}\n{answer}"
        case "context" | "system":
            return ""
    return question


def _pick(texts: Callable[[], list[Any]], number: int) -> Any:
    found = texts()
    return found[number % len(found)]


@cache
def _pairs() -> list[tuple[str, str]]:
    """Questions, each once, with an answer."""
    return list({row["instruction"]: row["output"] for row in _sample("kchain/tiny-code")}.items())


@cache
def _conversations() -> list[list[dict[str, str]]]:
    return [row["messages"] for row in _sample("kchain/tiny-chat")]


def _sample(ref: str) -> list[Row]:
    sample = next(sample for sample in SAMPLES if sample.ref == ref)
    return [json.loads(line) for line in sample.text().splitlines()]


def _put(row: Row, column: str, value: Any) -> None:
    """Set a column; dots reach into objects, as far as they are objects."""
    *outer, last = column.split(".")
    place = row
    for name in outer:
        inner = place.setdefault(name, {})
        if not isinstance(inner, dict):
            row[column] = value
            return
        place = inner
    place[last] = value
