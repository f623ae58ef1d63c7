"""Figures of the code's shape: files, functions, imports, helpers with one caller, the longest chain of calls.

    python benchmarks/house.py            the whole of kchain/, and each part
    python benchmarks/house.py --chain    the longest chain of calls, function by function
    python benchmarks/house.py --names    public classes, and files, that share a name
    python benchmarks/house.py --single   private functions with exactly one caller, file by file
    python benchmarks/house.py --root DIR the same of another checkout

Read from the source text alone. A call is followed where imports, annotations and constructors tell what is called;
functions that are handed on as values are not followed.
"""

from __future__ import annotations

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """One file, and what its text says.

    Attributes:
        functions: qualified name below the module, such as `Box.take`, to its node.
        names: a name that is bound by an import, to the dotted name behind it.
    """

    name: str
    path: Path
    text: str
    tree: ast.Module
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> int:
        return self.text.count("\n")

    @property
    def import_lines(self) -> int:
        nodes = (node for node in ast.walk(self.tree) if isinstance(node, ast.Import | ast.ImportFrom))
        return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes)


def read(root: Path) -> dict[str, Module]:
    """Every module of `root/kchain`, by its dotted name."""
    modules = {}
    for path in sorted((root / "kchain").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        module = Module(name, path, text, ast.parse(text))
        for prefix, node in _definitions(module.tree, ""):
            if isinstance(node, ast.ClassDef):
                module.classes[prefix] = node
            else:
                module.functions[prefix] = node
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ImportFrom):
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                source = ".".join([*above, *([node.module] if node.module else [])])
                module.names |= {alias.asname or alias.name: f"{source}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                module.names |= {alias.asname or alias.name: alias.name for alias in node.names}
        modules[name] = module
    return modules


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """Classes, functions and methods; a function inside a function belongs to the outer one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield prefix + child.name, child
            yield from _definitions(child, f"{prefix}{child.name}.")
        elif isinstance(child, Function):
            yield prefix + child.name, child
        elif isinstance(child, ast.If | ast.Try):
            yield from _definitions(child, prefix)


def single_callers(module: Module) -> list[str]:
    """Private functions and methods that exactly one place of their module names."""
    uses = Counter(node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name))
    uses += Counter(node.attr for node in ast.walk(module.tree) if isinstance(node, ast.Attribute))
    return [name for name in module.functions if _private(name) and uses[name.rpartition(".")[2]] == 1]


def _private(name: str) -> bool:
    last = name.rpartition(".")[2]
    return last.startswith("_") and not last.startswith("__")


def calls(modules: dict[str, Module]) -> dict[str, set[str]]:
    """Function -> functions that its body calls, by names such as `kchain.units:size`."""
    graph: dict[str, set[str]] = defaultdict(set)
    for module in modules.values():
        for name, node in module.functions.items():
            scope = Scope(modules, module, name, node)
            for inner in ast.walk(node):
                if isinstance(inner, ast.Call) and (found := scope.called(inner.func)):
                    graph[f"{module.name}:{name}"].add(found)
    return graph


class Scope:
    """What the names in one function are, as far as annotations and constructors tell."""

    def __init__(self, modules: dict[str, Module], module: Module, name: str, node: Function) -> None:
        self.modules, self.module = modules, module
        self.locals: dict[str, str | None] = {}
        own = name.rpartition(".")[0]
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
            self.locals[argument.arg] = class_named(modules, module, argument.annotation)
        if own and node.args.args and node.args.args[0].arg in ("self", "cls"):
            self.locals[node.args.args[0].arg] = f"{module.name}:{own}"
        for inner in ast.walk(node):
            if isinstance(inner, ast.Assign) and isinstance(inner.targets[0], ast.Name):
                self.locals.setdefault(inner.targets[0].id, self.type_of(inner.value))
            elif isinstance(inner, ast.withitem) and isinstance(inner.optional_vars, ast.Name):
                self.locals.setdefault(inner.optional_vars.id, self.type_of(inner.context_expr))

    def called(self, func: ast.expr) -> str | None:
        """The function behind the words before a call's brackets."""
        if isinstance(func, ast.Name):
            return function_named(self.modules, self.module, func.id)
        if not isinstance(func, ast.Attribute):
            return None
        if isinstance(func.value, ast.Name) and func.value.id not in self.locals:
            target = self.modules.get(self.module.names.get(func.value.id, ""))
            if target is not None:
                return function_named(self.modules, target, func.attr)
        kind = self.type_of(func.value)
        return method(self.modules, kind, func.attr) if kind else None

    def type_of(self, value: ast.expr) -> str | None:
        """The class of a value, as `module:Class`."""
        if isinstance(value, ast.Name):
            return self.locals.get(value.id)
        if isinstance(value, ast.Attribute) and (owner := self.type_of(value.value)):
            return attribute(self.modules, owner, value.attr)
        if isinstance(value, ast.Call):
            if isinstance(value.func, ast.Name) and (made := class_named(self.modules, self.module, value.func)):
                return made
            if found := self.called(value.func):
                home, _, name = found.partition(":")
                return class_named(self.modules, self.modules[home], self.modules[home].functions[name].returns)
        return None


def class_named(modules: dict[str, Module], module: Module, node: ast.expr | None, depth: int = 5) -> str | None:
    """The class that an annotation names, `X | None` and `Iterator[X]` included."""
    if isinstance(node, ast.BinOp):
        return class_named(modules, module, node.left) or class_named(modules, module, node.right)
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) in ("Iterator", "Generator"):
        return class_named(modules, module, node.slice)
    if not isinstance(node, ast.Name):
        return None
    if node.id in module.classes:
        return f"{module.name}:{node.id}"
    source, _, last = module.names.get(node.id, "").rpartition(".")
    return class_named(modules, modules[source], ast.Name(last), depth - 1) if depth and source in modules else None


def method(modules: dict[str, Module], kind: str, name: str) -> str | None:
    """A method of a class or of what it inherits from."""
    home, _, cls = kind.partition(":")
    module = modules[home]
    if f"{cls}.{name}" in module.functions:
        return f"{home}:{cls}.{name}"
    bases = (class_named(modules, module, base) for base in module.classes[cls].bases)
    return next((found for base in bases if base and (found := method(modules, base, name))), None)


def attribute(modules: dict[str, Module], kind: str, name: str) -> str | None:
    """The class of a field or property."""
    home, _, cls = kind.partition(":")
    module = modules[home]
    for node in module.classes[cls].body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name:
            return class_named(modules, module, node.annotation)
    if found := method(modules, kind, name):
        owner, _, full = found.partition(":")
        return class_named(modules, modules[owner], modules[owner].functions[full].returns)
    if start := module.functions.get(f"{cls}.__init__"):
        given = {each.arg: each.annotation for each in [*start.args.args, *start.args.kwonlyargs]}
        for node in ast.walk(start):
            if isinstance(node, ast.Assign) and f"self.{name}" in map(ast.unparse, node.targets):
                if isinstance(node.value, ast.Name):
                    return class_named(modules, module, given.get(node.value.id))
                if isinstance(node.value, ast.Call):
                    return class_named(modules, module, node.value.func)
    return None


def function_named(modules: dict[str, Module], module: Module, name: str, depth: int = 5) -> str | None:
    """A function by its name in a module, followed through imports; a class stands for its `__init__`."""
    if name in module.functions:
        return f"{module.name}:{name}"
    if name in module.classes:
        return method(modules, f"{module.name}:{name}", "__init__")
    source, _, last = module.names.get(name, "").rpartition(".")
    return function_named(modules, modules[source], last, depth - 1) if depth and source in modules else None


def longest_chain(graph: dict[str, set[str]]) -> list[str]:
    """The longest path of calls; functions that call each other in a circle count once."""
    best: dict[str, list[str]] = {}

    def walk(name: str, above: tuple[str, ...]) -> list[str]:
        if name in best:
            return best[name]
        paths = [walk(each, (*above, name)) for each in sorted(graph.get(name, ())) if each not in above + (name,)]
        found = [name, *max(paths, key=len, default=[])]
        best[name] = found
        return found

    return max((walk(name, ()) for name in sorted(graph)), key=len)


def row(title: str, modules: list[Module]) -> str:
    """One line of the table."""
    lines = [module.lines for module in modules]
    spans = [(n.end_lineno or n.lineno) - n.lineno + 1 for module in modules for n in module.functions.values()] or [0]
    private = sum(_private(name) for module in modules for name in module.functions)
    single = sum(len(single_callers(module)) for module in modules)
    imports = sum(module.import_lines for module in modules)
    p90 = quantiles(spans, n=10)[-1] if len(spans) > 1 else spans[0]
    share = f"{100 * single / len(spans):.0f}% ({100 * single / max(private, 1):.0f}% of the private)"
    files = (
        f"{title:16} {len(modules):4} files {sum(lines):7,} lines, {median(lines):3.0f} median, {max(lines):3} at most"
    )
    functions = f"{len(spans):5} functions, {median(spans):2.0f} median, {p90:2.0f} p90, {max(spans):2} at most"
    return f"{files} | {functions} | imports {100 * imports / (sum(lines) or 1):4.1f}% | one caller {single:3}, {share}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--root", type=Path, default=Path(__file__).parents[1])
    for name in ("chain", "names", "single"):
        options.add_argument(f"--{name}", action="store_true")
    asked = options.parse_args()
    modules = read(asked.root)
    if asked.names:
        same(modules)
    elif asked.single:
        for module in modules.values():
            if found := single_callers(module):
                print(f"{module.path.relative_to(asked.root)}: {', '.join(found)}")
    else:
        chain = longest_chain(calls(modules))
        files = len({name.partition(":")[0] for name in chain})
        if asked.chain:
            print("\n".join(chain))
        else:
            parts: dict[str, list[Module]] = defaultdict(list)
            for module in modules.values():
                parts[".".join(module.name.split(".")[1:2]) or "kchain"].append(module)
            for part, members in sorted(parts.items()):
                print(row(part, members))
            print(row("all", list(modules.values())))
        print(f"longest chain of calls: {len(chain)} functions through {files} files")


def same(modules: dict[str, Module]) -> None:
    """Prints public classes and files that share a name."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module in modules.values():
        for name in module.classes:
            if not name.startswith("_") and "." not in name:
                homes[name].append(module.name)
        if module.path.name != "__init__.py":
            homes[module.path.name].append(module.name)
    for name, places in sorted(homes.items()):
        if len(places) > 1:
            print(f"{name}: {', '.join(places)}")


if __name__ == "__main__":
    main()
