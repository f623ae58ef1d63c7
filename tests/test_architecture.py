"""The one-way data flow, and what the core command line may import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kchain"

# Left to right: a part imports only parts that stand before it. Parts of one row do not know each other.
ORDER: list[set[str]] = [
    {"errors", "units"},
    {"pages"},
    {"phases"},
    {"kernel_metadata"},
    {"templates"},
    {"bundle", "server"},
    {"orchestrator", "data"},
    {"export"},
    {"inference"},
    {"evaluation"},
    {"demo"},
    {"rehearse", "inbox"},
    {"cli"},
]
RANK = {part: rank for rank, parts in enumerate(ORDER) for part in parts}
HEAVY = ("kaggle", "kagglesdk", "requests", "torch", "transformers", "jupytext", "papermill", "starlette", "nbformat")


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Names of the kchain parts that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        found |= {name.split(".")[1] for name in names if name.startswith("kchain.")}
    return found


SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if part_of(path) in RANK)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_part_imports_only_parts_to_its_left(path: Path) -> None:
    own = part_of(path)
    # The client starts the local server on demand: the one step from orchestrator to server.
    backwards = {part for part in imports(path) if part != own and RANK.get(part, -1) >= RANK[own]}
    assert not backwards, f"{path.name} of {own} reaches back to {sorted(backwards)}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "runtime").glob("*.py")), ids=lambda path: path.name)
def test_the_runtime_knows_nothing_of_kchain(path: Path) -> None:
    assert imports(path) == set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.module != "kchain", path.name


def test_every_part_has_its_place_in_the_order() -> None:
    parts = {part_of(path) for path in PACKAGE.rglob("*.py")} - {"__init__", "__main__", "runtime"}
    assert parts == set(RANK)


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
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "HEAVY []" in done.stdout, done.stdout + done.stderr
