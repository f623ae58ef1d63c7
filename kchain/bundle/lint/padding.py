"""A pad token that is set only where the tokenizer has none."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

PAD = frozenset({"pad_token", "pad_token_id"})


def guarded_pads(trees: Iterable[ast.Module]) -> Iterator[tuple[int, ast.AST]]:
    """(index of the tree, place) of every guard, unless the pad token is also set without one somewhere."""
    found: list[tuple[int, ast.AST]] = []
    for index, tree in enumerate(trees):
        guards = [node for node in ast.walk(tree) if _is_guard(node)]
        inside = {id(node) for guard in guards for node in ast.walk(guard)}
        if any(_sets_pad(node) and id(node) not in inside for node in ast.walk(tree)):
            return
        found += [(index, guard) for guard in guards]
    yield from found


def _is_guard(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return _asks_pad(node.test) and any(_sets_pad(inner) for part in node.body for inner in ast.walk(part))
    if not isinstance(node, ast.Assign) or not any(_is_pad(target) for target in node.targets):
        return False
    # tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token, and the same with if ... else.
    if isinstance(node.value, ast.BoolOp):
        return isinstance(node.value.op, ast.Or) and _is_pad(node.value.values[0])
    return isinstance(node.value, ast.IfExp) and (_asks_pad(node.value.test) or _is_pad(node.value.test))


def _asks_pad(test: ast.expr) -> bool:
    """`x.pad_token is None`, `== None`, `not x.pad_token`, alone or among others."""
    if isinstance(test, ast.BoolOp):
        return any(_asks_pad(part) for part in test.values)
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _is_pad(test.operand)
    if isinstance(test, ast.Compare) and len(test.comparators) == 1:
        against = test.comparators[0]
        return _is_pad(test.left) and isinstance(against, ast.Constant) and against.value is None
    return False


def _sets_pad(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign):
        return any(_is_pad(target) for target in node.targets)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        is_addition = node.func.attr in {"add_special_tokens", "from_pretrained"}
        return is_addition and ("pad_token" in ast.unparse(node))
    return False


def _is_pad(node: ast.AST) -> bool:
    """`tokenizer.pad_token`; of a model's own configuration nothing is asked."""
    if not isinstance(node, ast.Attribute) or node.attr not in PAD:
        return False
    return not ast.unparse(node.value).endswith("config")
