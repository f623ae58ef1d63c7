"""The Python in a notebook cell: IPython's magics and shell lines taken out, every line kept in its place.

IPython itself would do this, but kchain's core install has no IPython. A line is a magic only where a statement could
begin, so `%` and `!=` inside an expression or a text are left alone.
"""

from __future__ import annotations

import io
import re
import tokenize
from dataclasses import dataclass

# Cell magics whose body is Python that runs in the notebook.
PYTHON_MAGICS = frozenset({"time", "timeit", "capture", "prun", "memit"})
SHELL_MAGICS = frozenset({"bash", "sh", "shell", "script", "system", "sx", "!"})
WRITE_MAGICS = frozenset({"writefile", "file"})

_CELL = re.compile(r"\A\s*%%(?P<name>[\w!]+)(?P<line>[^\n]*)\n?")
_LINE = re.compile(r"^(?P<indent>[ \t]*)(?:(?P<shell>!)|(?P<magic>%{1,2})|(?P<help>\?{1,2}))(?P<rest>.*)$")
_ASSIGNED = re.compile(r"^(?P<indent>[ \t]*)[A-Za-z_][\w.,\[\]\"' \t]*=\s*(?:!|%(?=[A-Za-z]))(?P<rest>.*)$")
_ASKED = re.compile(r"^(?P<indent>[ \t]*)[%\w.*]+\?{1,2}\s*$")


@dataclass(frozen=True)
class Plain:
    """A cell without its magics.

    Attributes:
        python: what Python runs, or would run from the file that the cell writes; None where the cell is no Python.
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
        end = _last_line(lines, number)
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
    return _is_complete("\n".join(before) + "\n")


def _is_complete(text: str) -> bool:
    """False inside a bracket or a text of several lines."""
    try:
        for _ in tokenize.generate_tokens(io.StringIO(text).readline):
            pass
    except tokenize.TokenError as error:
        return "EOF in multi-line" not in str(error) and "unexpected EOF" not in str(error)
    except SyntaxError:
        # Bad indentation: the cell does not compile anyway, and the compiler says so better.
        return True
    return True


def _last_line(lines: list[str], number: int) -> int:
    """A shell line goes on where it ends with a backslash."""
    while lines[number].rstrip().endswith("\\") and number + 1 < len(lines):
        number += 1
    return number
