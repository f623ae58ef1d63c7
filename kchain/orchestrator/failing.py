"""The traceback of the cell that failed, out of a session's log. Pure."""

from __future__ import annotations

import re

from kchain.orchestrator.log_lines import lines_of

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# IPython's first line of a traceback: the error's name, and far to the right the words.
_START = re.compile(r"^(?P<error>[A-Za-z_][\w.]*) +Traceback \(most recent call last\)$")
# What papermill, the HTML export and kchain's own events print right behind an error's message.
_NOISE = re.compile(r"\[\w+App\]|kchain: |(Executing|Ending) Cell ")
_PLAIN = "Traceback (most recent call last):"
_MOST_LINES = 60
_HEAD = 12


def failing_cell(log: str) -> str | None:
    """The last traceback in a log, without colours, shortened in the middle; None where there is none.

    Args:
        log: plain text, or the JSON array of log events as Kaggle stores it.
    """
    text = "\n".join(line.text for line in lines_of(log)) if log.lstrip().startswith("[{") else log
    lines = [_COLOURS.sub("", line).rstrip() for line in text.splitlines()]
    found = _of_cell(lines) or _plain(lines)
    return _shortened(found) if found else None


def _of_cell(lines: list[str]) -> list[str]:
    """IPython's traceback: from its first line to the line that names the error again, and what that one says."""
    for index in range(len(lines) - 1, -1, -1):
        match = _START.match(lines[index])
        if match:
            return lines[index : _end(lines, index + 1, match["error"])]
    return []


def _end(lines: list[str], start: int, error: str) -> int:
    for index in range(start, len(lines)):
        if re.match(rf"(?:[\w.]*\.)?{re.escape(error)}(:|$)", lines[index]):
            return _end_of_message(lines, index + 1)
    return len(lines)


def _end_of_message(lines: list[str], start: int) -> int:
    ends = (index for index in range(start, len(lines)) if not lines[index] or _NOISE.match(lines[index]))
    return next(ends, len(lines))


def _plain(lines: list[str]) -> list[str]:
    """Python's own traceback: up to the first line that is not indented, and what that one says."""
    for index in range(len(lines) - 1, -1, -1):
        if lines[index].endswith(_PLAIN):
            last = next(
                (at for at in range(index + 1, len(lines)) if lines[at] and lines[at][0] != " "), len(lines) - 1
            )
            return lines[index : _end_of_message(lines, last + 1)]
    return []


def _shortened(lines: list[str]) -> str:
    if len(lines) > _MOST_LINES:
        cut = len(lines) - _MOST_LINES
        lines = [*lines[:_HEAD], f"... {cut} lines ...", *lines[_HEAD + cut :]]
    return "\n".join(lines)
