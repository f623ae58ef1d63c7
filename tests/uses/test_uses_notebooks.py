"""Notebooks that train nothing: kchain's own modules in them, no more and no less, and their words."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from uses_tools import ENTRIES, carried, needed, told, use_chain

sys.path.append(str(Path(__file__).parents[1] / "templates"))

from templates_tools import NASTY, toml  # noqa: E402

from kchain.bundle import build, parameters_of, parse, source_bytes
from kchain.bundle.folder import metadata_text, notebook_text, write
from kchain.bundle.lint import lint
from kchain.phases import Chain, load_chain
from kchain.rehearse.settings import rehearsed_chain


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """The chain for Kaggle, with a GGUF file among its exports."""
    root = tmp_path_factory.mktemp("qwen")
    use_chain(root, "qwen-t4")
    path = root / "phases" / "make.toml"
    path.write_text(path.read_text(encoding="utf-8").replace('"adapter"', '"gguf"'), encoding="utf-8")
    return load_chain(root)


@pytest.mark.parametrize("phase", ENTRIES)
def test_a_notebook_carries_the_modules_that_it_needs_word_for_word(chain: Chain, phase: str) -> None:
    assert carried(chain, phase) == {path: text.removesuffix("\n") for path, text in needed(phase).items()}
    parts = {path.partition("/")[0] for path in needed(phase)}
    assert parts <= {"__init__.py", "errors.py", "files.py", "units.py", "runtime", "uses", "pages"}


def lay_out(folder: Path, phase: str) -> list[str]:
    """The files of kchain that a notebook carries, in a folder of their own; their paths below kchain's."""
    for name, text in needed(phase).items():
        file = folder / "kchain" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return list(needed(phase))


def test_with_nothing_else_of_kchain_its_page_can_be_made(tmp_path: Path) -> None:
    lay_out(tmp_path, "judge")
    report = {"chain": "c", "phase": "p", "base_model": "b", "check": "exact", "max_tokens": 8, "machine": "a CPU"}
    data = {"asked": 0, "held": 0, "left_out": 0, "file": "f"}
    report |= {"lineage": [{"phase": "p"}], "data": data, "sides": {}, "answers": []}
    report["verdict"] = {"words": "no difference shown"}
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from kchain.uses.report import page, __file__ as f"
    show = f"; print(f); print(page({report!r}))"
    done = subprocess.run([sys.executable, "-c", code + show], capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith(str(tmp_path)), done.stderr
    assert "no difference shown" in done.stdout and "prefers-color-scheme" in done.stdout


@pytest.mark.parametrize("phase", ENTRIES)
def test_with_nothing_else_of_kchain_its_session_can_be_imported(tmp_path: Path, phase: str) -> None:
    modules = [name.removesuffix(".py").replace("/", ".") for name in lay_out(tmp_path, phase) if name.endswith(".py")]
    loads = {f"kchain.{name}".removesuffix(".__init__") for name in modules}
    found = {
        name
        for file in (tmp_path / "kchain").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (name := node.module or "").startswith("kchain.")
    }
    assert found <= loads, "every module that one of them imports is there"
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {ENTRIES[phase]} as s; print(s.__file__)"
    heavy = "; print([name for name in ('torch', 'transformers', 'pydantic', 'jinja2') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + heavy], capture_output=True, text=True, timeout=300)
    assert str(tmp_path) in done.stdout and done.stdout.endswith("[]\n"), done.stdout + done.stderr


@pytest.mark.parametrize("phase", ENTRIES)
def test_the_notebook_is_valid_small_and_the_linter_finds_nothing(chain: Chain, phase: str) -> None:
    bundle = build(chain, phase, "kaggle", {})
    nbformat.validate(bundle.notebook)
    assert source_bytes(bundle.notebook) < 400_000
    assert not lint(write(bundle, chain.root))
    again = parse(notebook_text(bundle), metadata_text(bundle.metadata))
    assert (again.hash, again.code_hash) == (bundle.hash, bundle.code_hash)
    assert bundle.metadata["kernel_sources"] == [chain.kernel("phase1"), chain.kernel("phase2")]
    assert bundle.metadata["dataset_sources"] == []


def test_gguf_is_installed_pinned_and_only_where_it_is_asked_for(chain: Chain) -> None:
    assert [package.partition("==")[0] for package in told(chain, "make")["environment"]["install"]] == ["gguf"]
    assert told(chain, "say")["environment"]["install"] == []


def test_the_notebook_that_answers_ends_with_what_a_person_types(chain: Chain) -> None:
    cells = build(chain, "say", "kaggle", {}).notebook["cells"]
    assert cells[-1]["source"] == "ask, new = run.by_hand()"
    assert 'ask("What can you do?")' in cells[-2]["source"]
    assert "prompts.jsonl" in " ".join(cell["source"] for cell in cells), "the project's file travels in it"


def test_any_text_of_a_phase_file_comes_back_unchanged(tmp_path: Path) -> None:
    use_chain(tmp_path)
    texts = [text for text in NASTY if text.strip()]
    prompts = ", ".join(map(toml, texts))
    (tmp_path / "phases" / "say.toml").write_text(
        f'kind = "generate"\ntitle = {toml("Any <b>|text|</b> {{ x }}")}\ndescription = {toml("".join(NASTY))}\n'
        f'after = "phase2"\n[generate]\nprompts = [{prompts}]\n',
        encoding="utf-8",
    )
    chain = load_chain(tmp_path)
    bundle = build(chain, "say", "local", {})
    nbformat.validate(bundle.notebook)
    values = parameters_of(bundle.notebook)
    assert values["generate"]["prompts"] == [text.strip() for text in texts]
    assert values["description"] == "".join(NASTY).strip()
    assert carried(chain, "say").keys() == needed("say").keys(), "no cell was broken in two"


@pytest.mark.parametrize("phase", ENTRIES)
def test_a_rehearsal_runs_the_same_code_on_less(chain: Chain, phase: str) -> None:
    small = rehearsed_chain(chain, chain.root, _stands(chain), [each.name for each in chain.phases])
    real, here = build(chain, phase, "kaggle", {}), build(small, phase, "local", {})
    assert real.code_hash == here.code_hash and real.hash != here.hash
    assert small.phase(phase).precision == "fp32"


def _stands(chain: Chain) -> list[object]:
    from kchain.rehearse.settings import Stand

    pairs = [(phase.name, source.name) for phase in chain.phases for source in phase.data.sources]
    return [Stand(phase, source, "invented", "kchain/x", "x.jsonl") for phase, source in pairs]
