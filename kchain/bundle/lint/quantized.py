"""Follows 4-bit models through a notebook, from where they are loaded to where something is merged into them."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

MERGES = frozenset({"merge_and_unload", "merge_adapter"})
FOUR_BIT = "load_in_4bit"
PASSING = frozenset(
    {"from_pretrained", "get_peft_model", "prepare_model_for_kbit_training", "dict", "PeftModel", "prepare"}
)


@dataclass
class _Scope:
    """Names that hold something 4-bit, and whether the function they belong to returns one."""

    names: set[str] = field(default_factory=set)
    returns: bool = False


def merges_into_4bit(trees: Iterable[ast.Module]) -> Iterator[tuple[int, ast.Call]]:
    """(index of the tree, call) of every merge into a model that was loaded in 4 bits.

    Cells run in order, so names are followed from top to bottom: what is assigned from something 4-bit is 4-bit until
    the name is assigned again; after a branch it is what it is in either way. A function that returns such a model
    makes one.
    """
    scope = _Scope()
    for index, tree in enumerate(trees):
        for call in _walk(tree.body, scope):
            yield index, call


def _walk(body: Iterable[ast.stmt], scope: _Scope) -> Iterator[ast.Call]:
    for statement in body:
        yield from _merges(statement, scope.names)
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _walk_function(statement, scope)
        elif isinstance(statement, ast.ClassDef):
            yield from _walk(statement.body, _Scope(set(scope.names)))
        elif isinstance(statement, ast.Return):
            scope.returns |= statement.value is not None and _is_4bit(statement.value, scope.names)
        else:
            _follow(statement, scope.names)
            yield from _walk_branches(statement, scope)


def _walk_function(function: ast.FunctionDef | ast.AsyncFunctionDef, scope: _Scope) -> Iterator[ast.Call]:
    arguments = function.args
    own = {argument.arg for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}
    inner = _Scope(scope.names - own)
    yield from _walk(function.body, inner)
    (scope.names.add if inner.returns else scope.names.discard)(function.name)


def _walk_branches(statement: ast.stmt, scope: _Scope) -> Iterator[ast.Call]:
    """The bodies of an if, a loop, a with or a try, each from the same start; then whatever is 4-bit in any of them."""
    branches = [getattr(statement, name, []) for name in ("body", "orelse", "handlers", "finalbody")]
    bodies = [branch for branch in branches if branch]
    if not bodies:
        return
    # Without an else, or in a loop, the way around the body counts too; a with has no way around.
    ends = [] if isinstance(statement, (ast.With, ast.AsyncWith)) or len(bodies) > 1 else [set(scope.names)]
    for branch in bodies:
        inner = _Scope(set(scope.names))
        statements = [part for handler in branch for part in getattr(handler, "body", [])]
        yield from _walk(statements if isinstance(branch[0], ast.ExceptHandler) else branch, inner)
        ends.append(inner.names)
        scope.returns |= inner.returns
    scope.names.clear()
    scope.names.update(*ends)


def _merges(statement: ast.stmt, names: set[str]) -> Iterator[ast.Call]:
    for node in _own(statement):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in MERGES and _is_4bit(node.func.value, names):
            yield node


def _own(statement: ast.stmt) -> Iterator[ast.AST]:
    """The nodes of a statement without those of the statements in it."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        yield node
        children = ast.iter_child_nodes(node)
        waiting += [child for child in children if not isinstance(child, (ast.stmt, ast.ExceptHandler))]


def _follow(statement: ast.stmt, names: set[str]) -> None:
    """Take over what a statement says about its names."""
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            _assign(target, _is_4bit(statement.value, names), names)
    elif isinstance(statement, ast.AnnAssign) and statement.value is not None:
        _assign(statement.target, _is_4bit(statement.value, names), names)
    elif isinstance(statement, ast.Delete):
        for target in statement.targets:
            _assign(target, False, names)


def _assign(target: ast.expr, is_4bit: bool, names: set[str]) -> None:
    if isinstance(target, (ast.Tuple, ast.List)):
        # model, tokenizer = load(...): which of them is the model is not known; the first one is, by custom.
        for place, element in enumerate(target.elts):
            _assign(element, is_4bit and place == 0, names)
        return
    if isinstance(target, ast.Subscript):
        # kwargs["quantization_config"] = ... makes the dictionary 4-bit, and nothing makes it otherwise again.
        if is_4bit:
            names.add(ast.unparse(target.value))
        return
    (names.add if is_4bit else names.discard)(ast.unparse(target))


def _is_4bit(expression: ast.expr, names: set[str]) -> bool:
    """Whether a value is a 4-bit model, or the configuration that makes one."""
    if isinstance(expression, (ast.Name, ast.Attribute)):
        return ast.unparse(expression) in names
    if isinstance(expression, ast.Call):
        return _call_is_4bit(expression, names)
    if isinstance(expression, ast.Dict):
        pairs = zip(expression.keys, expression.values, strict=True)
        return any(
            (isinstance(key, ast.Constant) and key.value == FOUR_BIT and _is_true(value)) or _is_4bit(value, names)
            for key, value in pairs
        )
    if isinstance(expression, ast.IfExp):
        return _is_4bit(expression.body, names) or _is_4bit(expression.orelse, names)
    return False


def _is_true(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def _call_is_4bit(call: ast.Call, names: set[str]) -> bool:
    if isinstance(call.func, ast.Attribute):
        # What a merge or a dequantization gives back is not a 4-bit model any more; nor is a copy of its configuration.
        if call.func.attr in {*MERGES, "dequantize"}:
            return False
        if _is_4bit(call.func.value, names) and call.func.attr in {"to", "cuda", "eval", "train", "half", "float"}:
            return True
    if ast.unparse(call.func) in names:
        return True
    if any(keyword.arg == FOUR_BIT and _is_true(keyword.value) for keyword in call.keywords):
        return True
    # Calls whose result is the model, or the configuration, that goes in.
    if ast.unparse(call.func).rpartition(".")[2] not in PASSING:
        return False
    return any(_is_4bit(value, names) for value in [*call.args, *(keyword.value for keyword in call.keywords)])
