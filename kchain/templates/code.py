"""The files a notebook writes before it starts: the code it runs, verbatim, and the project's own examples.

A notebook that trains carries the whole runtime; any other the modules of kchain that its session needs.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from kchain.phases import Chain
from kchain.phases.load import travels_as

PACKAGE = "kchain"
# Kind of notebook -> the module that is its session.
SESSIONS = {
    "evaluate": "kchain.uses.evaluate_session",
    "export": "kchain.uses.export_session",
    "generate": "kchain.uses.chat_session",
}


@dataclass(frozen=True)
class NotebookFile:
    """A file that travels as one `%%writefile` cell.

    Attributes:
        path: where it is written, below its folder.
        text: what the file holds afterwards.
    """

    path: str
    text: str

    @property
    def body(self) -> str:
        """The cell below its first line. IPython ends a body that has no line break with one."""
        return self.text[:-1] if self.text.endswith("\n") and self.text[-2:-1] not in ("", "\n") else self.text

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def file(path: str, text: str) -> NotebookFile:
    """A file as `%%writefile` can write it: it ends with a line break, and an empty one is a lone line break."""
    return NotebookFile(path, text if text.endswith("\n") else f"{text}\n")


@dataclass(frozen=True)
class NotebookCode:
    """The code of one kind of notebook.

    Attributes:
        package: the name under which its modules are imported; they are in a folder of that name.
        session: the module that the driver cells call `session`.
        variable: what the notebook calls that folder.
    """

    package: str
    session: str
    variable: str
    files: tuple[NotebookFile, ...]


def code_of(kind: str) -> NotebookCode:
    """The code of a kind of notebook: the whole runtime for one that trains, else what its own session needs."""
    if kind == "train":
        return NotebookCode("kchain_runtime", "kchain_runtime.session", "RUNTIME", runtime_files())
    return NotebookCode(
        "kchain", SESSIONS[kind], "KCHAIN", tuple(file(path, read(path)) for path in closure(SESSIONS[kind]))
    )


def runtime_files() -> tuple[NotebookFile, ...]:
    """Every module of `kchain/runtime`, as it stands in this installation, in the order of their names."""
    folder = files(PACKAGE).joinpath("runtime")
    modules = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".py")), key=lambda entry: entry.name)
    return tuple(file(module.name, module.read_bytes().decode()) for module in modules)


def project_files(chain: Chain, phase_name: str) -> tuple[NotebookFile, ...]:
    """The files of the project that a phase names, as JSON lines, each once, in the order of its file."""
    names = dict.fromkeys(chain.phase(phase_name).files.values())
    return tuple(file(travels_as(name), chain.files[name]) for name in names)


@cache
def closure(entry: str) -> tuple[str, ...]:
    """Paths of the files that a module needs, below kchain's folder and in the order of their names, its own included.

    A package brings along the templates in its folder, as `kchain.pages` does its style.

    Args:
        entry: dotted name, such as "kchain.uses.evaluate_session".
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
    """A module's file, and what belongs to every package it is in or is; nothing for other names."""
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
    """Dotted names of what a file imports of kchain; some may not be modules but names in one."""
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
