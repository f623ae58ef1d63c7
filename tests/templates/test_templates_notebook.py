"""The notebook of a phase: complete, verbatim, the same on every render, and safe with any text in it."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from templates_tools import NASTY, literals, toml, write_chain, written

from kchain.bundle.lint.notebook import plain
from kchain.kernel_metadata import AdapterSource, adapter_sources
from kchain.phases import Chain, load_chain
from kchain.templates import cell_id, notebook, parameters_of_phase, percent

STAGES = ["install", "preflight", "merge", "load_data", "check_data", "train", "evaluate", "save"]
MODULES = sorted(entry.name for entry in files("kchain").joinpath("runtime").iterdir() if entry.name.endswith(".py"))


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return write_chain(tmp_path)


def render(chain: Chain, phase: str = "second", target: str = "kaggle", **adopted: AdapterSource) -> Any:
    return notebook(chain, phase, target, adapter_sources(chain, phase, adopted))


def source(rendered: Any, name: str) -> str:
    return str(next(cell["source"] for cell in rendered["cells"] if cell["id"].split("-", 1)[1] == name))


def head(rendered: Any) -> str:
    return source(rendered, "head")


def test_the_notebook_is_valid_and_names_its_kernel(chain: Chain) -> None:
    rendered = render(chain)
    nbformat.validate(rendered)
    assert rendered["metadata"]["kernelspec"]["name"] == "python3"
    assert (rendered["nbformat"], rendered["nbformat_minor"]) == (4, 5)
    assert all(cell["outputs"] == [] for cell in rendered["cells"] if cell["cell_type"] == "code")


def test_cell_ids_come_from_the_phase_and_the_name_of_the_cell(chain: Chain) -> None:
    ids = [cell["id"] for cell in render(chain)["cells"]]
    assert len(set(ids)) == len(ids)
    assert ids[:2] == ["second-head", "second-parameters"]
    assert {"second-check", "second-train", "second-save", "second-runtime-session"} <= set(ids)
    assert ids == [cell["id"] for cell in render(chain, target="local")["cells"]]


def test_an_id_that_would_be_too_long_stays_different_from_its_neighbours() -> None:
    long = [cell_id("p" * 40, f"runtime-{'m' * 40}{number}") for number in range(3)]
    assert {len(name) for name in long} == {64}
    assert len(set(long)) == 3
    assert cell_id("p", "x") == "p-x"


@pytest.mark.parametrize("module", MODULES)
def test_every_runtime_module_stands_in_the_notebook_byte_for_byte(chain: Chain, module: str) -> None:
    text = files("kchain").joinpath("runtime", module).read_bytes()
    assert written(render(chain))[f"$RUNTIME/{module}"].encode() == text


def test_every_file_is_written_before_its_hash_is_checked_and_before_it_is_imported(chain: Chain) -> None:
    rendered = render(chain)
    checked = literals(source(rendered, "check"))["SHA256"]
    arrived = {
        path.replace("$RUNTIME", "kchain_runtime").replace("$PROJECT", "project"): text
        for path, text in written(rendered).items()
    }
    assert {path: hashlib.sha256(text.encode()).hexdigest() for path, text in arrived.items()} == checked
    order = [cell["id"] for cell in rendered["cells"]]
    assert order.index("second-folders") < order.index("second-runtime-session") < order.index("second-check")
    assert order.index("second-check") < order.index("second-start")


def test_the_driver_cells_are_the_stages_of_the_runtime_in_order(chain: Chain) -> None:
    rendered = render(chain)
    assert source(rendered, "start") == (
        "from kchain_runtime import session\n\nrun = session.start(PARAMETERS, BUNDLE)"
    )
    cells = [cell for cell in rendered["cells"] if cell["source"].startswith("run.")]
    assert [cell["source"] for cell in cells] == [f"run.{stage}()" for stage in STAGES]
    for cell in cells:
        before = rendered["cells"][rendered["cells"].index(cell) - 1]
        assert before["cell_type"] == "markdown", "each stage says first what it does"


def test_one_tagged_cell_holds_every_parameter_and_nothing_else_does(chain: Chain) -> None:
    rendered = render(chain)
    tagged = [cell for cell in rendered["cells"] if cell["metadata"].get("tags") == ["parameters"]]
    assert len(tagged) == 1
    values = literals(tagged[0]["source"])
    told = parameters_of_phase(chain, "second", "kaggle", adapter_sources(chain, "second", {}))
    assert values == {"BUNDLE": "0" * 64, "PARAMETERS": told}
    assert values["PARAMETERS"]["lineage"] == [
        {"phase": "first", "kind": "kernel", "ref": "someone/a-first-phase", "folder": "adapter", "sha256": None}
        | {"use": "merge"}
    ]


def test_an_adopted_ancestor_brings_its_place_and_hash(chain: Chain) -> None:
    first = AdapterSource("first", "dataset", "someone/my-adapter", "", "ab" * 32)
    rendered = render(chain, first=first)
    lineage = literals(source(rendered, "parameters"))["PARAMETERS"]["lineage"]
    assert lineage == [
        {"phase": "first", "kind": "dataset", "ref": "someone/my-adapter", "folder": "", "sha256": "ab" * 32}
        | {"use": "merge"}
    ]
    assert "someone/my-adapter" in head(rendered)


def test_only_kaggles_image_gets_packages_installed_and_removed(chain: Chain) -> None:
    on_kaggle = literals(source(render(chain), "parameters"))["PARAMETERS"]["environment"]
    assert [package.split("==")[0] for package in on_kaggle["install"]] == ["bitsandbytes"]
    assert on_kaggle["uninstall"] == ["torchao"]
    at_home = literals(source(render(chain, target="local"), "parameters"))["PARAMETERS"]["environment"]
    assert at_home == {"install": [], "uninstall": []}
    assert "has its environment already" in source(render(chain, target="local"), "install-about")


def test_a_phase_without_8_bit_parts_does_not_install_bitsandbytes(tmp_path: Path) -> None:
    write_chain(tmp_path)
    with (tmp_path / "kchain.toml").open("a") as file:
        file.write('[training]\noptimizer = "adamw_torch"\n')
    chain = load_chain(tmp_path)
    assert literals(source(render(chain), "parameters"))["PARAMETERS"]["environment"]["install"] == []


@pytest.mark.parametrize(
    "words",
    [
        "# A second phase",
        "first (`someone/a-first-phase`",
        "`NvidiaTeslaT4`: 2 of 2 GPUs used",
        "rank 16, alpha 32",
        "batch 2 x accumulation 8 = 16",
        "data/own.jsonl of this project",
        "data.jsonl of x/y",
        "h/f on Hugging Face (train)",
        "fp16: NvidiaTeslaT4 has no bf16",
        "kchain render second --target kaggle",
        "1.7 GiB at most, of 14.6 GiB: weights 0.9",
        "for the merged base",
        "the chain goes on only if",
    ],
)
def test_the_head_says_what_will_happen(chain: Chain, words: str) -> None:
    assert words in head(render(chain))


def test_a_root_phase_says_that_there_is_nothing_to_merge(chain: Chain) -> None:
    rendered = render(chain, "first")
    assert "nothing: the base model as it is" in head(rendered)
    assert "Nothing to merge" in source(rendered, "merge-about")
    assert "merged base" not in head(rendered)


def test_the_head_warns_of_a_phase_that_does_not_fit_its_session(tmp_path: Path) -> None:
    write_chain(tmp_path)
    with (tmp_path / "phases" / "second.toml").open("a") as file:
        file.write("[training]\nepochs = 90\nmax_sessions = 1\n")
    assert "**Does not fit:**" in head(render(load_chain(tmp_path)))


def test_the_head_says_how_many_sessions_a_phase_may_take(tmp_path: Path) -> None:
    write_chain(tmp_path)
    assert "at most 3 sessions of 9 h = 27 h of GPU quota" in head(render(load_chain(tmp_path)))


def test_the_head_warns_of_a_step_that_does_not_fit_the_gpu_and_says_what_would(tmp_path: Path) -> None:
    write_chain(tmp_path)
    with (tmp_path / "phases" / "second.toml").open("a") as file:
        file.write("[training]\nbatch = 16\naccumulation = 1\ncheckpointing = false\n")
    words = head(render(load_chain(tmp_path)))
    assert "**Does not fit:** a step takes" in words
    assert "or checkpointing = true (" in words


PROGRAM = """
import sys
from pathlib import Path
from kchain.bundle import build
from kchain.phases import load_chain
import nbformat
bundle = build(load_chain(Path(sys.argv[1])), "second", "kaggle", {})
sys.stdout.buffer.write(nbformat.writes(bundle.notebook).encode() + bundle.hash.encode())
"""


def test_every_render_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    write_chain(tmp_path)
    seen = set()
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": f"UTC-{seed[0]}", "LC_ALL": "C"}
        command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
        seen.add(subprocess.run(command, env=environment, capture_output=True, check=True, timeout=300).stdout)
    assert len(seen) == 1
    assert len(seen.pop()) > 10_000


def test_jupytext_reads_the_rendered_text_into_the_same_cells(chain: Chain) -> None:
    text = percent(chain, "second", "kaggle", adapter_sources(chain, "second", {}))
    assert "# \\%%" not in text, "this comparison needs text without quoted lines"
    oracle = jupytext.reads(text, fmt="py:percent")
    ours = render(chain)
    assert [cell["cell_type"] for cell in oracle.cells] == [cell["cell_type"] for cell in ours["cells"]]
    for theirs, mine in zip(oracle.cells, ours["cells"], strict=True):
        assert theirs["source"].rstrip() == mine["source"].rstrip(), mine["id"]


TEXT = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=8)), max_size=6).map("".join)
FILLED = TEXT.map(lambda text: f"a{text}b")
NO_CONTROL = TEXT.map(lambda text: "".join(char for char in text if ord(char) >= 32 and ord(char) != 127))
TITLE = NO_CONTROL.map(lambda text: f"title {text}"[:49] + "z")
ROWS = st.lists(st.dictionaries(TEXT, st.one_of(TEXT, st.integers(), st.none()), max_size=3), min_size=1, max_size=4)


@st.composite
def _texts(draw: st.DrawFn) -> dict[str, str]:
    names = ["description", "prompt", "column", "contains", "equals", "split", "remote", "eos"]
    found = {name: draw(FILLED) for name in names} | {"system": draw(TEXT), "title": draw(TITLE)}
    rows = draw(ROWS)
    plain_json = draw(st.booleans())
    return {**found, "jsonl": "".join(json.dumps(row, ensure_ascii=plain_json) + "\n" for row in rows)}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_texts())
@example({"description": "".join(NASTY), "system": '\n# %% id="x"\n{{ a }}', "jsonl": '{"# %% id=": "# %%"}\n'})
def test_any_text_leaves_the_notebook_valid_and_comes_back_unchanged(texts: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        chain = write_chain(Path(folder), **texts)
        rendered = render(chain)
        reference = [cell["id"] for cell in render(write_chain(Path(folder)))["cells"]]
    nbformat.validate(rendered)
    assert [cell["id"] for cell in rendered["cells"]] == reference, "no text makes or hides a cell"
    for python in _pythons(rendered):
        compile(python, "cell", "exec")
    values = literals(source(rendered, "parameters"))["PARAMETERS"]
    assert values == parameters_of_phase(chain, "second", "kaggle", adapter_sources(chain, "second", {}))
    for name, found in _read_back(values).items():
        expected = texts.get(name, found)
        assert found == (expected if name == "system" else expected.strip()), name
    assert written(rendered)["$PROJECT/data/own.jsonl"] == chain.files["data/own.jsonl"]
    if "jsonl" in texts:
        rows = [json.loads(line) for line in texts["jsonl"].split("\n") if line]
        assert [json.loads(line) for line in chain.files["data/own.jsonl"].split("\n") if line] == rows
    _assert_head_holds_together(head(rendered))


def _pythons(rendered: Any) -> Iterator[str]:
    for cell in rendered["cells"]:
        if cell["cell_type"] == "code" and (python := plain(cell["source"]).python) is not None:
            yield python


def _read_back(values: dict[str, Any]) -> dict[str, str]:
    _, mounted, hub = values["data"]["sources"]
    return {
        "title": values["title"],
        "description": values["description"],
        "system": values["data"]["system_prompt"],
        "prompt": mounted["fields"]["prompt"],
        "column": mounted["where"][0]["column"],
        "contains": mounted["where"][0]["contains"][0],
        "equals": mounted["where"][1]["equals"],
        "split": hub["split"],
        "remote": mounted["file"],
        "eos": values["pad"]["token"],
    }


def _assert_head_holds_together(markdown: str) -> None:
    """One heading, three tables with their rows, and no HTML, whatever the texts hold."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
    kinds = [token.type for token in tokens]
    assert kinds.count("heading_open") == 1
    assert kinds.count("table_open") == 3
    assert kinds.count("tr_open") == 8 + 4 + 9
    assert not {"html_block", "fence", "code_block", "hr", "bullet_list_open", "ordered_list_open"} & set(kinds)
    inline = {child.type for token in tokens if token.children for child in token.children}
    assert not {"html_inline", "image", "link_open", "em_open", "s_open"} & inline


def test_toml_of_the_tests_is_honest() -> None:
    import tomllib

    for text in NASTY:
        assert tomllib.loads(f"x = {toml(text)}")["x"] == text


EXECUTE = """
import json, sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
for cell in json.load(open(sys.argv[1]))["cells"]:
    if cell["id"].endswith("-start"):
        break
    if cell["cell_type"] == "code":
        result = shell.run_cell("".join(cell["source"]))
        result.raise_error()
"""


def execute(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the cells up to the first driver cell in a real IPython, with /kaggle moved beside the notebook."""
    moved = {"KCHAIN_KAGGLE_ROOT": str(path.parent / "kaggle"), "IPYTHONDIR": str(path.parent / "ipython")}
    command = [sys.executable, "-c", EXECUTE, str(path)]
    return subprocess.run(command, env={**os.environ, **moved}, capture_output=True, text=True, timeout=300)


def test_ipython_writes_the_files_as_they_were_rendered(tmp_path: Path) -> None:
    rows = [{"p": '# %% id="x"', "c": "{{ y }}\u2028$RUNTIME"}, {"p": "!ls\n%%bash", "c": "\\%% 😀"}]
    chain = write_chain(tmp_path, jsonl="".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    path = tmp_path / "notebook.ipynb"
    path.write_text(nbformat.writes(render(chain)), encoding="utf-8")
    done = execute(path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "files are as rendered" in done.stdout
    scratch = tmp_path / "kaggle" / "temp"
    assert (scratch / "project" / "data" / "own.jsonl").read_text(encoding="utf-8") == chain.files["data/own.jsonl"]
    for module in MODULES:
        text = files("kchain").joinpath("runtime", module).read_bytes()
        assert (scratch / "kchain_runtime" / module).read_bytes() == text


def test_a_file_that_was_changed_on_the_way_stops_the_notebook(tmp_path: Path) -> None:
    rendered = render(write_chain(tmp_path))
    for cell in rendered["cells"]:
        if cell["id"] == "second-runtime-failure":
            cell["source"] += "\nimport this"
    path = tmp_path / "notebook.ipynb"
    path.write_text(nbformat.writes(rendered), encoding="utf-8")
    done = execute(path)
    assert done.returncode != 0
    assert "failure.py is not the file that kchain rendered" in done.stderr + done.stdout
