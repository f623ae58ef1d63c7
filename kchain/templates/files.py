"""The files a notebook writes before it starts: the runtime, verbatim, and the project's own examples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from kchain.phases import Chain
from kchain.phases.project_files import travels_as
from kchain.templates.closure import closure, read

# Kind of notebook -> the part of kchain that has its session.
SESSIONS = {"evaluate": "kchain.evaluation", "export": "kchain.export", "generate": "kchain.inference"}


@dataclass(frozen=True)
class File:
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

    @property
    def folder(self) -> str:
        return self.path.rpartition("/")[0]


def file(path: str, text: str) -> File:
    """A file as `%%writefile` can write it: it ends with a line break, and an empty one is a lone line break."""
    return File(path, text if text.endswith("\n") else f"{text}\n")


@dataclass(frozen=True)
class Code:
    """The code of one kind of notebook.

    Attributes:
        package: the name under which its modules are imported; they lie in a folder of that name.
        session: the module that the driver cells import `session` from.
        variable: what the notebook calls that folder.
    """

    package: str
    session: str
    variable: str
    files: tuple[File, ...]


def code_of(kind: str) -> Code:
    """The code of a kind of notebook: the whole runtime for one that trains, else what its own session needs."""
    if kind == "train":
        return Code("kchain_runtime", "kchain_runtime", "RUNTIME", runtime_files())
    session = SESSIONS[kind]
    needed = closure(f"{session}.session")
    return Code("kchain", session, "KCHAIN", tuple(file(path, read(path)) for path in needed))


def runtime_files() -> tuple[File, ...]:
    """Every module of `kchain/runtime`, as it stands in this installation, in the order of their names."""
    folder = files("kchain").joinpath("runtime")
    modules = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".py")), key=lambda entry: entry.name)
    return tuple(file(module.name, module.read_bytes().decode()) for module in modules)


def project_files(chain: Chain, phase_name: str) -> tuple[File, ...]:
    """The files of the project that a phase names, as JSON lines, each once, in the order of its file."""
    names = dict.fromkeys(chain.phase(phase_name).files.values())
    return tuple(file(travels_as(name), chain.files[name]) for name in names)
