"""What is linted and what linting finds: a folder with its metadata and its code, read without trusting any of it.

Here are the rules about notebooks; those about metadata are in `kchain.kernel_metadata.check`. The Python of a cell is
what is left without IPython's magics and shell lines, with every line in its place.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kchain.bundle.cells import cells_of, text
from kchain.errors import InputError
from kchain.kernel_metadata import METADATA_FILE, NOTEBOOK_FILE, Rule, Severity

NO_METADATA = Rule(
    "KC100",
    "error",
    "Kaggle's client reads kernel-metadata.json first, and sends nothing without it.",
    "Write one; `kaggle kernels init` makes an empty one.",
)
NO_NOTEBOOK = Rule(
    "KC201",
    "error",
    "Kaggle cannot run a file that is not a notebook.",
    "Put a notebook there, saved by the editor it comes from, or name the right file in code_file.",
)
NO_KERNELSPEC = Rule(
    "KC202",
    "error",
    "Kaggle runs notebooks with papermill, which stops with 'No kernel name found in notebook'.",
    'Put "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"} into the metadata.',
)
TOO_LARGE = Rule(
    "KC203",
    "error",
    "Kaggle takes sources up to 1 MiB, counted as its client sends them: ASCII JSON without outputs.",
    "Move data into a Kaggle data set, and long code into fewer cells.",
)
NOT_PYTHON = Rule("KC204", "error", "The session ends at this cell.", "Correct the cell.")
NO_GPU = Rule(
    "KC301",
    "error",
    "Training on Kaggle's CPU takes days, and a session ends after 12 h.",
    'Write "enable_gpu": true and name a machine_shape.',
)
NO_INTERNET = Rule(
    "KC302",
    "error",
    "Without internet pip finds nothing, and a failing !pip does not even stop the notebook.",
    'Write "enable_internet": true, or attach the wheels as a data set and install with --no-index.',
)
AUTO_DEVICE = Rule(
    "KC303",
    "error",
    "On a machine with several GPUs this spreads the layers over all of them: steps wait for each other (23.5 s in "
    "place of 5 s was measured), and trainers refuse or wrap the model.",
    'Load with device_map={"": 0}, or set CUDA_VISIBLE_DEVICES=0 first.',
)
PAD_GUARD = Rule(
    "KC401",
    "error",
    "Qwen tokenizers come with a pad token (151654), so the guard never acts and the model learns gibberish.",
    "Set it without asking: tokenizer.pad_token = tokenizer.eos_token, and mask padding by length.",
)
MERGE_4BIT = Rule(
    "KC402",
    "error",
    "A 4-bit weight has no room for a LoRA update: merging rounds most of it away.",
    "Load the base in half or full precision, merge, and quantize afterwards.",
)
SECRET = Rule(
    "KC501",
    "error",
    "A notebook is stored on Kaggle with all its versions; a secret in it is given away for good.",
    "Take it out, revoke it, and make a new one.",
)


# Cell magics whose body is Python that runs in the notebook.
PYTHON_MAGICS = frozenset({"time", "timeit", "capture", "prun", "memit"})
SHELL_MAGICS = frozenset({"bash", "sh", "shell", "script", "system", "sx", "!"})
WRITE_MAGICS = frozenset({"writefile", "file"})

_CELL = re.compile(r"\A\s*%%(?P<name>[\w!]+)(?P<line>[^\n]*)\n?")
_LINE = re.compile(r"^(?P<indent>[ \t]*)(?:(?P<shell>!)|(?P<magic>%{1,2})|(?P<help>\?{1,2}))(?P<rest>.*)$")
_ASSIGNED = re.compile(r"^(?P<indent>[ \t]*)[A-Za-z_][\w.,\[\]\"' \t]*=\s*(?:!|%(?=[A-Za-z]))(?P<rest>.*)$")
_ASKED = re.compile(r"^(?P<indent>[ \t]*)[%\w.*]+\?{1,2}\s*$")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        rule: its id, such as KC401.
        where: file and key, or cell and line.
        message: what is wrong there.
        reason: why it goes wrong on Kaggle.
        cure: what to do about it.
    """

    rule: str
    severity: Severity
    where: str
    message: str
    reason: str
    cure: str


def finding(rule: Rule, where: str, message: str) -> Finding:
    """A rule broken in one place."""
    return Finding(rule.id, rule.severity, where, message, rule.reason, rule.cure)


@dataclass(frozen=True)
class Plain:
    """A cell without its magics.

    Attributes:
        python: what Python runs, or would run from the file that the cell writes; None where the cell is not Python.
        shell: (line number in the cell, command) of every shell command.
    """

    python: str | None
    shell: tuple[tuple[int, str], ...] = ()


def plain(source: str) -> Plain:
    """A code cell as plain Python."""
    header = _CELL.match(source)
    if header is None:
        return _without_lines(source)
    body = "\n" * header[0].count("\n") + source[header.end() :]
    name = header["name"]
    if name in WRITE_MAGICS:
        return Plain(body if header["line"].strip().strip("\"'").endswith(".py") else None)
    if name in SHELL_MAGICS:
        return Plain(None, tuple((number, line) for number, line in enumerate(source.split("\n"), 1) if number > 1))
    return _without_lines(body) if name in PYTHON_MAGICS else Plain(None)


def _without_lines(source: str) -> Plain:
    lines = source.split("\n")
    kept: list[str] = []
    shell: list[tuple[int, str]] = []
    while len(kept) < len(lines):
        number = len(kept)
        found = _magic(lines[number]) if _may_begin(kept, lines[number]) else None
        if found is None:
            kept.append(lines[number])
            continue
        indent, command = found
        end = number  # a shell line goes on where it ends with a backslash
        while lines[end].rstrip().endswith("\\") and end + 1 < len(lines):
            end += 1
        if command:
            shell.append((number + 1, " ".join([command, *lines[number + 1 : end + 1]]).replace("\\", " ")))
        kept += [f"{indent}pass", *[""] * (end - number)]
    return Plain("\n".join(kept), tuple(shell))


def _magic(line: str) -> tuple[str, str] | None:
    """(indent, shell command or empty) of a line that is a magic."""
    if match := _LINE.match(line):
        return match["indent"], _command(match["rest"], is_shell=match["shell"] is not None)
    if match := _ASSIGNED.match(line):
        return match["indent"], _command(match["rest"], is_shell=True)
    if match := _ASKED.match(line):
        return match["indent"], ""
    return None


def _command(rest: str, *, is_shell: bool) -> str:
    """The shell command of a line; some magics are shell commands in all but name."""
    command = rest.strip()
    return command if is_shell or re.match(r"(pip|conda|uv|sx|system|bash|sh|env|set_env)\b", command) else ""


def _may_begin(before: list[str], line: str) -> bool:
    """Whether `line` begins a statement; asked only of lines that look like a magic, as the answer costs time."""
    if _magic(line) is None:
        return False
    if before and before[-1].rstrip().endswith("\\"):
        return False
    # Inside a bracket or a text of several lines the statement before it is not complete.
    text = "\n".join(before) + "\n"
    try:
        for _ in tokenize.generate_tokens(io.StringIO(text).readline):
            pass
    except tokenize.TokenError as error:
        return "EOF in multi-line" not in str(error) and "unexpected EOF" not in str(error)
    except SyntaxError:
        # Bad indentation: the cell does not compile anyway, and the compiler says so better.
        return True
    return True


@dataclass(frozen=True)
class Piece:
    """A piece of Python: a cell, a file that a cell writes, or a whole script.

    Attributes:
        where: "cell 3" or the file's name.
        tree: None where the piece is not Python, or does not compile.
        shell: (line, command) of its shell lines.
    """

    where: str
    tree: ast.Module | None
    shell: tuple[tuple[int, str], ...]


@dataclass
class Linted:
    """A bundle folder as it was found.

    Attributes:
        metadata: empty where there is none that can be read.
        name: of the file with the code.
        source: its text as it is on disk, None where it cannot be read.
        notebook: the notebook in it; None for a script, or where there is none.
        texts: (where, text) of everything a person wrote: cells, or the script.
        codes: the Python in it.
        findings: what already went wrong in reading it.
    """

    folder: Path
    metadata: dict[str, Any]
    name: str
    source: str | None = None
    notebook: dict[str, Any] | None = None
    texts: list[tuple[str, str]] = field(default_factory=list)
    codes: list[Piece] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def read_subject(folder: Path) -> Linted:
    """Read a folder; whatever is missing or broken in it is a finding.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder", "lint a folder with a notebook and its kernel-metadata.json")
    findings: list[Finding] = []
    metadata = _metadata(folder, findings)
    named = metadata.get("code_file")
    there = sorted(path.name for path in folder.glob("*.ipynb"))
    name = named if isinstance(named, str) and named else [*there, NOTEBOOK_FILE][0]
    subject = Linted(folder, metadata, name, findings=findings)
    subject.source = _text(folder / name, NO_NOTEBOOK, findings)
    if subject.source is not None:
        _take_apart(subject, subject.source)
    return subject


def _metadata(folder: Path, findings: list[Finding]) -> dict[str, Any]:
    found = _text(folder / METADATA_FILE, NO_METADATA, findings)
    if found is None:
        return {}
    try:
        metadata = json.loads(found)
    except (ValueError, RecursionError) as error:
        findings.append(finding(NO_METADATA, METADATA_FILE, f"it is not JSON: {error}"))
        return {}
    if not isinstance(metadata, dict):
        findings.append(finding(NO_METADATA, METADATA_FILE, "it is not a JSON object"))
        return {}
    return metadata


def _text(path: Path, rule: Any, findings: list[Finding]) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")
    except OSError as error:
        findings.append(finding(rule, path.name, f"it cannot be read: {error.strerror or error}"))
    except UnicodeDecodeError:
        findings.append(finding(rule, path.name, "it is not UTF-8 text"))
    return None


def _take_apart(subject: Linted, source: str) -> None:
    if subject.metadata.get("kernel_type") == "script" or not subject.name.endswith(".ipynb"):
        subject.texts.append((subject.name, source))
        if subject.name.endswith(".py"):
            subject.codes.append(_code(subject.name, source, (), subject.findings))
        return
    try:
        subject.notebook = cells_of(source)
    except ValueError as error:
        subject.findings.append(finding(NO_NOTEBOOK, subject.name, f"it is not a notebook: {error}"))
        return
    for number, cell in enumerate(subject.notebook["cells"], 1):
        where, content = f"cell {number}", text(cell)
        subject.texts.append((where, content))
        if cell["cell_type"] == "code" and subject.metadata.get("language", "python") == "python":
            without = plain(content)
            subject.codes.append(_code(where, without.python, without.shell, subject.findings))


def _code(where: str, python: str | None, shell: tuple[tuple[int, str], ...], findings: list[Finding]) -> Piece:
    tree = None
    if python is not None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # warnings about escapes in someone else's text
                tree = ast.parse(python)
                # IPython lets `await` stand outside of functions.
                compile(python, "cell", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        except SyntaxError as error:
            tree = None
            findings.append(finding(NOT_PYTHON, f"{where}, line {error.lineno or 1}", f"not Python: {error.msg}"))
        except (ValueError, RecursionError, MemoryError) as error:
            tree = None
            findings.append(finding(NOT_PYTHON, where, f"not Python: {error or type(error).__name__}"))
    return Piece(where, tree, shell)
