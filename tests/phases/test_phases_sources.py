"""One table for the kinds of source: a new kind is a row of it and a reader, and nothing else changes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import kchain
from kchain.phases.source_kinds import SOURCE_KINDS
from kchain.runtime.readers import SOURCES

ROW = """    SourceKind(
        name="imaginary",
        key="imaginary",
        form=Text,
        help="an imaginary place",
        words=lambda source: f"rows of the imaginary {source.place}",
        needs_internet=True,
        attached="dataset_sources",
    ),
"""
BEFORE = "    # The last one:"
READER = """
SOURCES["imaginary"] = lambda source: enumerate(
    [{"q": f"{source['imaginary']} {n}?", "a": f"It is {n}."} for n in range(40)], start=1
)
"""
CHAIN = '[chain]\nname = "far"\nowner = "someone"\ntarget = "local"\n[model]\nsource = "a/qwen/transformers/tiny/1"\n'
PHASE = """
title = "From an imaginary place"
description = "A phase."
[data]
validation = 0.0
[[data.sources]]
name = "made"
imaginary = "a/place"
fields = { prompt = "q", completion = "a" }
"""
# Everything that a source goes through, in a kchain that has one more kind.
JOURNEY = """
import json, pathlib, sys
from kchain.bundle import build
from kchain.errors import InputError
from kchain.phases import load_chain
from kchain.phases.plan import plan_of
from kchain.rehearse.rows import stand_ins
from kchain.rehearse.settings import rehearsed_chain
from kchain.runtime.data import load
from kchain.runtime.paths import session_paths
from kchain.templates.parameters import data_table

root = pathlib.Path(sys.argv[1])
chain = load_chain(root)
phase = chain.phases[0]
bundle = build(chain, "one", "local", {})
prepared = stand_ins(chain, ["one"])
small = rehearsed_chain(chain, root, [each.stand for each in prepared], ["one"])
mix = load(session_paths(), data_table(phase), 1)
text = root / "kchain.toml"
text.write_text(text.read_text().replace('target = "local"', 'target = "local"\\ninternet = false'))
try:
    refused = str(load_chain(root))
except InputError as error:
    refused = error.message
print(json.dumps({
    "plan": plan_of(chain, "one").sources,
    "head": bundle.notebook["cells"][0]["source"],
    "attached": bundle.metadata["dataset_sources"],
    "read": mix.reports[0].read,
    "stand": [prepared[0].stand.kind, small.phases[0].data.sources[0].kind.name],
    "refused": refused,
}))
"""


def test_a_new_kind_is_one_row_and_its_reader(tmp_path: Path) -> None:
    code, project = tmp_path / "code", tmp_path / "project"
    shutil.copytree(Path(kchain.__file__).parent, code / "kchain", ignore=shutil.ignore_patterns("__pycache__"))
    table, readers = code / "kchain/phases/source_kinds.py", code / "kchain/runtime/readers.py"
    assert table.read_text(encoding="utf-8").count(BEFORE) == 1
    table.write_text(table.read_text(encoding="utf-8").replace(BEFORE, ROW + BEFORE), encoding="utf-8")
    readers.write_text(readers.read_text(encoding="utf-8") + READER, encoding="utf-8")
    (project / "phases").mkdir(parents=True)
    (project / "kchain.toml").write_text(CHAIN, encoding="utf-8")
    (project / "phases/one.toml").write_text(PHASE, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", JOURNEY, str(project)],
        env={**os.environ, "PYTHONPATH": str(code), "KCHAIN_KAGGLE_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["plan"] == ["rows of the imaginary a/place"]
    assert "| made | rows of the imaginary a/place |" in found["head"]
    assert found["attached"] == ["a/place"]
    assert found["read"] == 40
    assert found["stand"] == ["invented", "dataset"]
    assert "'made' needs internet" in found["refused"]


def test_every_kind_can_be_read_in_a_session() -> None:
    mounted = {kind.name for kind in SOURCE_KINDS if kind.attached or kind.travels}
    assert {kind.name for kind in SOURCE_KINDS} - mounted == set(SOURCES)
