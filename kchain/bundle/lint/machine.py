"""What goes wrong in code that runs: a machine that does not fit it (no GPU, no internet, layers over several GPUs),
a pad token that is set only where the tokenizer has none, and secrets. A finding never repeats the secret.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kchain.bundle.lint.notebook import AUTO_DEVICE, NO_GPU, NO_INTERNET, SECRET, Finding, Linted, Piece, finding
from kchain.kernel_metadata import DEFAULT_GPU, METADATA_FILE, flag
from kchain.phases import ACCELERATORS

PAD = frozenset({"pad_token", "pad_token_id"})
TRAINERS = re.compile(r"(?:^|\.)\w*Trainer$")
SPREAD = frozenset({"auto", "balanced", "balanced_low_0", "sequential"})
# A requirement to fetch: no option, no local file.
_FETCHED = re.compile(r"(?:^|\s)(?![-./~$])(?=[A-Za-z])[\w.\[\],<>=!~+-]+")


# What each kind of secret looks like, as its maker documents it. Lengths keep prose and placeholders out.
_KINDS: dict[str, re.Pattern[str]] = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "a Kaggle token": re.compile(r"\bKGAT_[0-9a-f]{32}\b"),
    "a Kaggle key": re.compile(r"""(?i)kaggle_key\W{1,6}[0-9a-f]{32}\b|["']key["']\s*:\s*["'][0-9a-f]{32}["']"""),
    "an AWS access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    "an AWS secret key": re.compile(r"(?i)aws_secret_access_key\W{1,6}[A-Za-z0-9/+]{40}\b"),
    "a private key": re.compile(r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{60,}\b"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{32,}\b|\bAIza[0-9A-Za-z_-]{35}\b"),
    "a Slack token": re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{20,}"),
    "a Weights & Biases key": re.compile(r"(?i)wandb\w*\W{1,20}[0-9a-f]{40}\b"),
}


@dataclass(frozen=True)
class Told:
    """What kchain's own notebooks say in PARAMETERS; all are None in others."""

    gpus: int | None = None
    installs: bool | None = None
    target: str | None = None


def machine_fits(subject: Linted) -> Iterator[Finding]:
    """Findings about the code and the machine that the metadata asks for."""
    told = what_is_told(subject.codes)
    gpu = flag(subject.metadata, "enable_gpu", default=False) is True
    if not subject.metadata:
        return
    if not gpu and told.gpus != 0:
        yield from _without_gpu(subject.codes)
    if flag(subject.metadata, "enable_internet", default=True) is False:
        yield from _without_internet(subject.codes, told)
    known = ACCELERATORS.get(str(subject.metadata.get("machine_shape") or DEFAULT_GPU))
    if gpu and known and known.gpus > 1 and not _chooses_gpu(subject.codes):
        for code in subject.codes:
            for value in (value for node in _nodes([code]) for value in _device_maps(node)):
                yield finding(AUTO_DEVICE, f"{code.where}, line {value.lineno}", f"device_map={value.value!r}")


def what_is_told(codes: Iterable[Piece]) -> Told:
    """What a notebook of kchain's says of itself."""
    for node in _nodes(codes):
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["PARAMETERS"]:
            try:
                values = ast.literal_eval(node.value)
                installs = bool(values["environment"]["install"])
                return Told(values["accelerator"]["gpus"], installs, values["target"])
            except (ValueError, KeyError, TypeError):
                return Told()
    return Told()


def _nodes(codes: Iterable[Piece]) -> Iterator[ast.AST]:
    for code in codes:
        if code.tree is not None:
            yield from ast.walk(code.tree)


def _calls(codes: Iterable[Piece]) -> Iterator[tuple[Piece, ast.Call]]:
    for code in codes:
        for node in _nodes([code]):
            if isinstance(node, ast.Call):
                yield code, node


def _place(code: Piece, node: ast.Call) -> str:
    return f"{code.where}, line {node.lineno}"


def _without_gpu(codes: Iterable[Piece]) -> Iterator[Finding]:
    """The first sign of training is enough."""
    for code, call in _calls(codes):
        name = ast.unparse(call.func)
        trains = bool(TRAINERS.search(name)) or name.endswith((".backward", ".cuda"))
        moved = (argument.value for argument in call.args if isinstance(argument, ast.Constant))
        moves = name.endswith(".to") and any(str(value).startswith("cuda") for value in moved)
        if trains or moves:
            yield finding(NO_GPU, _place(code, call), f"{name}(...) with the GPU off")
            return


def _without_internet(codes: Iterable[Piece], told: Told) -> Iterator[Finding]:
    if told.installs:
        yield finding(NO_INTERNET, "PARAMETERS", "the environment installs packages with the internet off")
    for code in codes:
        for line, command in code.shell:
            if _fetches(command):
                yield finding(NO_INTERNET, f"{code.where}, line {line}", f"{command[:80]} with the internet off")
    for code, call in _calls(codes):
        words = " ".join(
            node.value for node in ast.walk(call) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        )
        name = ast.unparse(call.func)
        if re.match(r"(subprocess|os)\.", name) and _fetches(words):
            yield finding(NO_INTERNET, _place(code, call), f"{name}(...) installs packages with the internet off")


def _fetches(command: str) -> bool:
    """Whether a shell command installs something that is not on disk."""
    match = re.search(r"\b(?:pip3?|conda|apt(?:-get)?)\b[^|;&]*?\binstall\b(?P<what>[^|;&]*)", command)
    if match is None or "--no-index" in command:
        return False
    # The word after an option with a value is not a requirement, but such installs name one besides.
    return _FETCHED.search(match["what"]) is not None


def _chooses_gpu(codes: Iterable[Piece]) -> bool:
    """Whether the notebook lets itself see one GPU."""
    shell = (command for code in codes for _, command in code.shell)
    if any("CUDA_VISIBLE_DEVICES" in command for command in shell):
        return True
    return any(isinstance(node, ast.Constant) and node.value == "CUDA_VISIBLE_DEVICES" for node in _nodes(codes))


def _device_maps(node: ast.AST) -> Iterator[ast.Constant]:
    """`device_map="auto"` as an argument or in a dictionary."""
    values: list[ast.expr] = []
    if isinstance(node, ast.Call):
        values = [keyword.value for keyword in node.keywords if keyword.arg == "device_map"]
    elif isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        values = [value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "device_map"]
    for value in values:
        if isinstance(value, ast.Constant) and value.value in SPREAD:
            yield value


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


def secrets(subject: Linted) -> Iterator[Finding]:
    """Every secret in the code, the text and the metadata."""
    places = [*subject.texts, (METADATA_FILE, str(subject.metadata))]
    for where, content in places:
        for kind, pattern in _KINDS.items():
            for match in pattern.finditer(content):
                line = content.count("\n", 0, match.start()) + 1
                yield finding(SECRET, f"{where}, line {line}", f"{kind} ({match[0][:4]}…)")
