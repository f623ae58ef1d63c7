"""The modules of kchain that one of them needs: what a notebook carries that does more than train.

Found by reading the imports, wherever they stand in a module, but for those that only a type checker follows. So the
code of such a notebook is kchain's own, file by file and under its own names.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.resources import files

PACKAGE = "kchain"


@cache
def closure(entry: str) -> tuple[str, ...]:
    """Paths of the files that a module needs, below kchain's folder and in the order of their names, its own included.

    A package brings the templates along that lie in its folder, as `kchain.pages` does its style.

    Args:
        entry: dotted name, such as "kchain.evaluation.session".
    """
    found: set[str] = set()
    waiting = [entry]
    while waiting:
        name = waiting.pop()
        for path in _files_of(name):
            if path not in found:
                found.add(path)
                waiting += _imports(path) if path.endswith(".py") else []
    return tuple(sorted(found))


def read(path: str) -> str:
    """The text of a file of kchain as it stands in this installation."""
    return files(PACKAGE).joinpath(path).read_bytes().decode()


def _files_of(name: str) -> Iterator[str]:
    """A module's file, and what belongs to every package it lies in or is; nothing for other names."""
    parts = name.split(".")[1:]
    for depth in range(len(parts) + 1):
        folder = files(PACKAGE).joinpath(*parts[:depth])
        if folder.joinpath("__init__.py").is_file():
            names = (entry.name for entry in folder.iterdir())
            kept = (each for each in names if each == "__init__.py" or each.endswith(".jinja"))
            yield from ("/".join([*parts[:depth], each]) for each in kept)
    if parts and files(PACKAGE).joinpath(*parts[:-1], f"{parts[-1]}.py").is_file():
        yield "/".join([*parts[:-1], f"{parts[-1]}.py"])


def _imports(path: str) -> list[str]:
    """Dotted names of what a file imports of kchain; some may be no modules but names in one."""
    here = [PACKAGE, *path.split("/")[:-1]]
    names: list[str] = []
    for node in _runtime_nodes(ast.parse(read(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = here[: len(here) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.split(".")[0] == PACKAGE]


def _runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those below `if TYPE_CHECKING:`."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from _runtime_nodes(node)
