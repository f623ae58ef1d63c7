"""Values as Python literals: the only way in which a value enters code."""

from __future__ import annotations

from typing import Any

# Literals up to this width stay on one line; beyond it, one item a line, as a formatter would write them.
WIDTH = 110
INDENT = "    "


def literal(value: Any, depth: int = 0, used: int = 0) -> str:
    """Python source whose `ast.literal_eval` is `value`; tuples come back as lists.

    Args:
        depth: how deep the text stands, in steps of four spaces.
        used: columns taken on its first line by what stands in front of it.

    Raises:
        TypeError: the value holds something that is not str, int, float, bool, None, a list, a tuple or a dict.
        ValueError: it holds an infinity or NaN, which have no literal.
    """
    flat = _flat(value)
    if len(INDENT) * depth + used + len(flat) <= WIDTH and not _is_several_lines(value):
        return flat
    if isinstance(value, str):
        return _long_text(value, depth)
    if isinstance(value, dict) and value:
        items = [(f"{_flat(key)}: ", item) for key, item in value.items()]
        return _block("{", [head + literal(item, depth + 1, len(head)) for head, item in items], "}", depth)
    if isinstance(value, (list, tuple)) and value:
        return _block("[", [literal(item, depth + 1) for item in value], "]", depth)
    return flat


def _flat(value: Any) -> str:
    """The literal on one line."""
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, (bool, int)):
        return repr(value)
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise ValueError(f"{value} has no Python literal")
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_flat(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_flat(key)}: {_flat(item)}' for key, item in value.items())}}}"
    raise TypeError(f"{type(value).__name__} has no place in a notebook's parameters")


def _text(value: str) -> str:
    """`repr`, in double quotes where that needs no escape. Invisible and right-to-left characters come out escaped."""
    source = repr(value)
    # repr takes single quotes unless the text holds one; so without any double quote inside they can be swapped.
    return f'"{source[1:-1]}"' if source[0] == "'" and '"' not in value else source


def _is_several_lines(value: Any) -> bool:
    """Whether a text in it has several lines, each of which gets a line of its own."""
    if isinstance(value, dict):
        return any(map(_is_several_lines, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_is_several_lines, value))
    return isinstance(value, str) and "\n" in value.rstrip("\n")


def _long_text(value: str, depth: int) -> str:
    """A text of several lines as adjacent literals, one a line, so that a diff shows the line that changed."""
    lines = value.split("\n")
    pieces = [f"{line}\n" for line in lines[:-1]] + lines[-1:]
    kept = [_text(piece) for piece in pieces if piece]
    if len(kept) < 2:
        return _text(value)
    outer, inner = INDENT * depth, INDENT * (depth + 1)
    return "(\n" + "".join(f"{inner}{piece}\n" for piece in kept) + f"{outer})"


def _block(opening: str, items: list[str], closing: str, depth: int) -> str:
    inner = INDENT * (depth + 1)
    return f"{opening}\n" + "".join(f"{inner}{item},\n" for item in items) + INDENT * depth + closing
