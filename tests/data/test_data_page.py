"""Every command and every table of docs/data.md works as printed."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
from command import kchain

from kchain.phases import Quality, load_chain
from kchain.phases.data import Data
from kchain.runtime.quality import WORDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip() for block in re.findall(r"```sh\n(.*?)```", PAGE, re.S) for line in block.splitlines()
]
TABLES = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
HEAD = 'title = "Alpha one"\ndescription = "A phase."\n'
CHAIN = '[chain]\nname = "alpha"\nowner = "someone"\n[model]\nsource = "a/b/c/d/1"\n'


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the page's phase, a copy of its data set, and collected interactions."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("phases", "copies/data"):
        (folder / name).mkdir(parents=True)
    (folder / "kchain.toml").write_text(CHAIN)
    (folder / "phases" / "one.toml").write_text(HEAD + TABLES[0])
    (folder / "own.csv").write_text("ask,answer\n" + "".join(f"ask {n},answer {n}.\n" for n in range(30)))
    rows = [
        {"question": f"How do I list file {n}?", "output": f"ls -la {n}", "response": None, "meta": {"lang": "bash"}}
        for n in range(20)
    ]
    write_parquet(folder / "copies" / "data" / "0.parquet", rows)
    records = [
        {"task": {"description": f"Do {n}"}, "agent": {"role": "a", "name": "b"}, "execution": {"output": f"Done {n}."}}
        for n in range(298)
    ]
    (folder / "interactions.json").write_text(json.dumps(records))
    (folder / "prompts.toml").write_text('b = "You are b."\n')
    return folder


def write_parquet(path: Path, rows: list[dict[str, object]]) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.Table.from_pylist(rows), path)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_works_as_printed(project: Path, command: str) -> None:
    program, *words = shlex.split(command)
    assert program == "kchain"
    done = kchain(project, *words, COLUMNS="120")
    assert done.returncode == 0, done.stdout + done.stderr
    if "--with" in words:
        assert re.search(r"^commands +20 +20 ", done.stdout, re.M), "the conditions of the page hold"
    if "prepared" in words:
        assert "238 train, 29 validation, 31 test, 298 total" in done.stdout


def test_the_tables_of_the_page_are_valid(project: Path) -> None:
    assert len(load_chain(project).phase("one").data.sources) == 3
    table = tomllib.loads(TABLES[1])["data"]["quality"]
    assert Quality(**table).bare_numbers == Quality().bare_numbers == 0.02


def test_every_fault_is_explained_and_has_a_threshold() -> None:
    page = (ROOT / "docs" / "phase-files.md").read_text(encoding="utf-8")
    section = page.partition("## `[data.quality]`")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\* `(\w+) = ", section, re.M)) == set(WORDS) == set(Quality.model_fields)
    assert "quality" in Data.model_fields
