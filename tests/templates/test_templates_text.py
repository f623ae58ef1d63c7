"""The small parts of rendering: literals, prose, and the py:percent reader."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from templates_tools import NASTY

from kchain.templates.code import file
from kchain.templates.head import code, prose, quotation
from kchain.templates.parameters import literal
from kchain.templates.render import comment, quote, read

TEXT = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=6)), max_size=8).map("".join)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), TEXT)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)


@given(VALUES, st.integers(0, 4))
def test_a_literal_evaluates_to_the_value(value: Any, depth: int) -> None:
    assert ast.literal_eval(literal(value, depth).strip()) == value


def test_a_literal_keeps_the_type_of_a_number() -> None:
    assert literal([1, 1.0, True, None]) == "[1, 1.0, True, None]"


def test_tuples_come_back_as_lists() -> None:
    assert literal({"a": (1, (2,))}) == '{"a": [1, [2]]}'


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), [float("inf")]])
def test_a_number_without_a_literal_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="no Python literal"):
        literal(value)


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), {"a": {1}}])
def test_a_value_that_is_no_plain_data_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match="no place in a notebook"):
        literal(value)


def test_a_text_of_several_lines_is_written_line_by_line() -> None:
    assert literal({"a": "one\ntwo\n"}) == '{\n    "a": (\n        "one\\n"\n        "two\\n"\n    ),\n}'


def test_right_to_left_and_invisible_characters_cannot_hide_in_a_literal() -> None:
    shown = literal("a\u202eb\u200bc\u2066d")
    assert shown == '"a\\u202eb\\u200bc\\u2066d"'


def test_long_collections_take_a_line_an_item() -> None:
    lines = literal({"names": ["a" * 30, "b" * 30, "c" * 30, "d" * 30]}).split("\n")
    assert len(lines) == 8
    assert max(len(line) for line in lines) < 60


@given(TEXT)
def test_quoted_text_in_a_cell_is_read_back_unchanged(text: str) -> None:
    cells = read(f'# %% id="a"\n{quote(text)}\n\n# %% id="b" tags=["x"]\npass\n')
    assert [(cell.name, cell.source, cell.tags) for cell in cells] == [("a", text, ()), ("b", "pass", ("x",))]


@given(TEXT.filter(lambda text: "\r" not in text))
def test_markdown_is_read_back_but_for_spaces_at_the_ends_of_lines(text: str) -> None:
    (cell,) = read(f'# %% [markdown] id="a"\n{comment(text)}\n\n')
    expected = "\n".join(line.rstrip(" ") for line in text.strip("\n").split("\n"))
    assert cell.kind == "markdown"
    assert cell.source == expected


@given(TEXT)
def test_prose_shows_what_was_typed(text: str) -> None:
    """Rendered as Markdown it is one paragraph with no markup, and the words are those that were typed."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(prose(text))
    assert [token.type for token in tokens] in ([], ["paragraph_open", "inline", "paragraph_close"])
    children = [child for token in tokens for child in token.children or []]
    assert {child.type for child in children} <= {"text", "text_special"}
    shown = "".join(child.content for child in children)
    assert [word for word in shown.split() if word.isalnum()] == [
        word for word in _visible(text).split() if word.isalnum()
    ]


def _visible(text: str) -> str:
    hidden = "\u200b\u200c\u200d\u200e\u200f\u2028\u2029\ufeff"
    hidden += "".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A), *range(0x80, 0xA0), 0x7F]))
    return "".join(" " if char in hidden or ord(char) < 32 else char for char in text)


@given(TEXT)
def test_a_quotation_stays_inside_its_block(text: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(quotation(text) + "\n\nafter")
    outer = [token.type for token in tokens if token.level == 0]
    quoted = ["blockquote_open", "blockquote_close"] if quotation(text) else []
    assert outer == [*quoted, "paragraph_open", "inline", "paragraph_close"] or outer[: len(quoted)] == quoted


@given(TEXT.filter(str.strip))
def test_inline_code_ends_where_it_should(text: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"before {code(text)} after")
    kinds = [child.type for token in tokens for child in token.children or []]
    assert kinds == ["text", "code_inline", "text"]


@pytest.mark.parametrize(
    "text, body, kept",
    [
        ("a\n", "a", "a\n"),
        ("a", "a", "a\n"),
        ("a\n\n", "a\n\n", "a\n\n"),
        ("", "\n", "\n"),
        ("\n", "\n", "\n"),
        ("\n\na\n", "\n\na", "\n\na\n"),
    ],
)
def test_a_file_ends_as_ipython_will_write_it(text: str, body: str, kept: str) -> None:
    found = file("x.py", text)
    assert (found.body, found.text) == (body, kept)
