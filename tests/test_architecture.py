"""The one-way data flow, and what the core command line may import."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kchain"

# Left to right: a part imports only parts that stand before it. Parts of one row do not know each other. A folder of
# `orchestrator/` is a part of its own here; "orchestrator" is the commands that stand beside them.
ORDER: list[set[str]] = [
    {"errors", "units", "files"},
    {"pages"},
    {"runtime"},
    {"phases", "uses"},
    {"kernel_metadata"},
    {"templates"},
    {"bundle", "server"},
    {"client", "data", "orchestrator.journal"},
    {"orchestrator.judging"},
    {"orchestrator.driving"},
    {"orchestrator"},
    {"publish", "demo"},
    {"rehearse", "inbox"},
    {"cli"},
]
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
# What travels into a notebook, and all that it may know of kchain. `uses` stands on `runtime`, never the other way.
TRAVELS = {"runtime": {"runtime"}, "uses": {"uses", "runtime", "errors", "units", "pages", "files"}}
HEAVY = (
    *("kaggle", "kagglesdk", "requests", "torch", "transformers", "jupytext", "papermill", "starlette", "nbformat"),
    # Parts of kchain that these commands have no use for, and that take their time to load.
    *("kchain.templates", "kchain.server.db", "kchain.data"),
)


def part_of(dotted: list[str]) -> str:
    """The part of a module, by its name below `kchain`."""
    room = ".".join(dotted[:2])
    return room if room in RANK else dotted[0]


def imports(path: Path) -> set[str]:
    """The kchain parts that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found |= {part_of(name.split(".")[1:]) for name in names if name.startswith("kchain.")}
    return found - {"__version__"}


SOURCES = {
    path: part_of(list(path.relative_to(PACKAGE).with_suffix("").parts))
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent != PACKAGE or not path.name.startswith("__")
}


def test_a_part_imports_only_parts_to_its_left() -> None:
    back = {
        f"{path.relative_to(PACKAGE)} -> {part}"
        for path, own in SOURCES.items()
        for part in imports(path) - {own}
        if RANK[part] >= RANK[own]
    }
    assert not back


def test_what_travels_into_a_notebook_knows_only_what_travels() -> None:
    strangers = {
        f"{path.relative_to(PACKAGE)} -> {part}"
        for path, own in SOURCES.items()
        for part in imports(path) - TRAVELS.get(own, set(RANK))
    }
    assert not strangers


def test_the_runtime_imports_itself_by_relative_names() -> None:
    # In a notebook its package has another name.
    assert not [path.name for path, own in SOURCES.items() if own == "runtime" and imports(path)]


def test_every_part_has_its_place_in_the_order() -> None:
    assert set(SOURCES.values()) == set(RANK)


def test_no_circle_of_modules() -> None:
    """What is imported while a module loads never leads back to it."""
    modules = {".".join(("kchain", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in SOURCES}
    modules = {name.removesuffix(".__init__"): path for name, path in modules.items()}
    needs = {name: top_imports(name, path, set(modules)) for name, path in modules.items()}
    try:
        order = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")
    assert set(order) == set(modules)


def top_imports(name: str, path: Path, modules: set[str]) -> set[str]:
    """Modules of kchain that a module imports while it loads."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {full if (full := f"{module}.{alias.name}") in modules else module for alias in node.names}
    return (found & modules) - {name}


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["push", "--help"]], ids=" ".join)
def test_light_commands_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "phases").mkdir()
    (tmp_path / "kchain.toml").write_text(
        '[chain]\nname = "light"\nowner = "someone"\n[model]\nsource = "a/b/c/d/1"\n', encoding="utf-8"
    )
    (tmp_path / "phases" / "one.toml").write_text(
        'title = "Light one"\ndescription = "A phase."\n[data]\n'
        'sources = [{ name = "x", dataset = "a/b", file = "c.jsonl", fields = { prompt = "p", completion = "c" } }]\n',
        encoding="utf-8",
    )
    code = (
        "import sys\n"
        f"sys.argv = ['kchain', *{arguments!r}]\n"
        "from kchain.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
