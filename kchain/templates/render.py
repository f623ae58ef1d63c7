"""From a phase to its notebook: Jinja renders py:percent text, the text is read into cells. Pure and deterministic."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from kchain.kernel_metadata.build import AdapterSource
from kchain.phases import Chain
from kchain.templates.code import code_of, project_files
from kchain.templates.head import head
from kchain.templates.parameters import literal, parameters_of_phase

if TYPE_CHECKING:
    from jinja2 import Environment
    from nbformat import NotebookNode


# The kinds that have a template of another name than their own.
TEMPLATES = {"train": "phase"}
# What BUNDLE holds until the hash is known.
NO_HASH = "0" * 64
# nbformat allows letters, digits, - and _, 64 at most.
ID_LENGTH = 64
KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
# A cell of the text begins with such a line; a line of its own that looks like one is quoted.
HEADER = re.compile(r"^# %%(?P<markdown> \[markdown\])? (?P<options>id=.*)$", re.MULTILINE)
_MARK = re.compile(r"^(# *)(\\*)%%", re.MULTILINE)
_QUOTED = re.compile(r"^(# *)\\(\\*)%%", re.MULTILINE)


@dataclass(frozen=True)
class Cell:
    """One cell: `name` is unique in its notebook and becomes part of its id."""

    name: str
    kind: Literal["code", "markdown"]
    source: str
    tags: tuple[str, ...] = ()


def quote(text: str) -> str:
    """Text that can stand inside a cell: none of its lines looks like the start of one."""
    return _MARK.sub(r"\1\2\\%%", text)


def comment(text: str) -> str:
    """Markdown as comment lines, quoted."""
    return quote("\n".join(f"# {line}".rstrip(" ") for line in text.strip("\n").split("\n")))


def read(text: str) -> tuple[Cell, ...]:
    """The cells of a rendered text, in order."""
    headers, cells = list(HEADER.finditer(text)), []
    ends = [header.start() for header in headers[1:]] + [len(text)]
    for header, end in zip(headers, ends, strict=True):
        options = dict(part.split("=", 1) for part in header["options"].split(" "))
        body = text[header.end() + 1 : end]
        # A cell ends with its line break and one empty line; whatever else stands there is the cell's own.
        body = body.removesuffix("\n\n") if body.endswith("\n\n") else body.removesuffix("\n")
        source = _QUOTED.sub(r"\1\2%%", body)
        kind: Literal["code", "markdown"] = "code"
        if header["markdown"]:
            kind, source = "markdown", "\n".join(line[2:] for line in source.split("\n"))
        cells.append(Cell(json.loads(options["id"]), kind, source, tuple(json.loads(options.get("tags", "[]")))))
    return tuple(cells)


def notebook(chain: Chain, phase_name: str, target: str, sources: Iterable[AdapterSource]) -> NotebookNode:
    """The notebook of a phase, with `BUNDLE` still 64 zeros.

    Raises:
        InputError: the chain has no phase of that name.
    """
    cells = []
    for cell in read(percent(chain, phase_name, target, tuple(sources))):
        metadata = {"tags": list(cell.tags)} if cell.tags else {}
        run: dict[str, Any] = {} if cell.kind == "markdown" else {"execution_count": None, "outputs": []}
        identity = {"id": cell_id(phase_name, cell.name), "cell_type": cell.kind}
        cells.append({**identity, "metadata": metadata, "source": cell.source, **run})
    about = {"kernelspec": KERNELSPEC, "language_info": {"name": "python"}}
    return node({"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5})


def node(notebook: dict[str, Any]) -> NotebookNode:
    """A notebook as nbformat's own type."""
    import nbformat

    make: Callable[[dict[str, Any]], NotebookNode] = nbformat.from_dict
    return make(notebook)


def percent(chain: Chain, phase_name: str, target: str, sources: tuple[AdapterSource, ...]) -> str:
    """The same as py:percent text.

    Raises:
        InputError: the chain has no phase of that name.
    """
    values = parameters_of_phase(chain, phase_name, target, sources)
    kind = chain.phase(phase_name).kind
    code, project = code_of(kind), project_files(chain, phase_name)
    written = {f"{code.package}/{file.path}": file.sha256 for file in code.files}
    below = {f"project/{file.path}": file.sha256 for file in project}
    install = [f"`{package}` is installed: Kaggle's image lacks it." for package in values["environment"]["install"]]
    remove = [
        f"`{name}` is removed: the image's version keeps peft from working."
        for name in values["environment"]["uninstall"]
    ]
    template = _environment().get_template(f"{TEMPLATES.get(kind, kind)}.py.jinja")
    return template.render(
        **head(chain, phase_name, target, sources),
        bundle=NO_HASH,
        parameters=values,
        ancestors=[source.phase for source in sources if source.use == "merge"],
        continued=[source.phase for source in sources if source.use == "continue"],
        environment_words=" ".join([*install, *remove]),
        package=code.package,
        session_from=code.session.rpartition(".")[0],
        session_name=code.session.rpartition(".")[2],
        variable=code.variable,
        runtime=code.files,
        project=project,
        # Below scratch: those of the code first.
        folders=[folder for part in (written, below) for folder in sorted({name.rpartition("/")[0] for name in part})],
        sha256={**written, **below},
    )


def cell_id(phase_name: str, name: str) -> str:
    """A stable id from phase and cell; one that would be too long ends in a hash of what was cut."""
    found = f"{phase_name}-{name}"
    if len(found) <= ID_LENGTH:
        return found
    return f"{found[: ID_LENGTH - 9]}-{hashlib.sha256(found.encode()).hexdigest()[:8]}"


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # What is rendered is Python and Markdown, not HTML: values are made safe by `literal` and `prose`.
    environment = Environment(
        loader=PackageLoader("kchain", "templates"),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(literal=literal, comment=comment, quote=quote)
    environment.globals["cell_name"] = _cell_name
    return environment


def _cell_name(kind: str, path: str) -> str:
    """A name for the cell of a file, as the header's JSON string: readable for a module, unique for any path."""
    stem = path.removesuffix(".py").replace("/", "-")
    if kind == "runtime" and re.fullmatch(r"[\w-]+", stem, re.ASCII):
        return json.dumps(f"runtime-{stem}")
    return json.dumps(f"{kind}-{hashlib.sha256(path.encode()).hexdigest()[:8]}")
