"""Text that people wrote, made safe to stand in Markdown: what they typed is what a reader sees."""

from __future__ import annotations

import re

# Everything with which Markdown, a table, HTML or MathJax could begin something.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|$~&{}])")
_LINE_START = re.compile(r"^([#+=-]|\d+(?=[.)]))")
_INVISIBLE = re.compile(r"[^\S\n]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def prose(text: str) -> str:
    """One line of Markdown that shows `text`; line breaks become spaces."""
    return " ".join(paragraphs(text))


def quotation(text: str) -> str:
    """A block quote that shows `text` line by line."""
    return "\n>\n".join(f"> {line}" for line in paragraphs(text))


def paragraphs(text: str) -> list[str]:
    """The lines of a text that hold something, each escaped."""
    visible = _INVISIBLE.sub(" ", text)
    return [_escape(line) for line in (re.sub(" +", " ", raw).strip() for raw in visible.split("\n")) if line]


def _escape(line: str) -> str:
    safe = _SPECIAL.sub(r"\\\1", line)
    return _LINE_START.sub(lambda start: start[0] + "\\" if start[0].isdigit() else "\\" + start[0], safe)


def code(text: str) -> str:
    """Inline code that shows `text`, whatever backticks it holds. Not for tables, where a pipe would end it."""
    line = _INVISIBLE.sub(" ", text).replace("\n", " ")
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    gap = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{fence}{gap}{line}{gap}{fence}"
