"""Whether an answer counts as a success, by a check that a person chose. Nothing of an answer is ever run."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable

from kchain.errors import InputError

# A code block in an answer: what is checked is what stands in the first one.
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
# Seconds for bash to read an answer.
_PATIENCE = 20


def exact(answer: str, expected: str) -> bool:
    """The answer is the expected one, but for white space around it."""
    return answer.strip() == expected.strip()


def contains(answer: str, expected: str) -> bool:
    """The expected text stands somewhere in the answer, in any case."""
    return expected.strip().casefold() in answer.casefold()


def regex(answer: str, expected: str) -> bool:
    """The expected regular expression is found in the answer."""
    return re.search(expected, answer) is not None


def valid_json(answer: str, expected: str) -> bool:
    """The answer is a JSON object or list; a bare number or word is none."""
    try:
        return isinstance(json.loads(code(answer)), dict | list)
    except (ValueError, RecursionError):
        return False


def python(answer: str, expected: str) -> bool:
    """The answer is Python that compiles, with at least one statement."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            return bool(ast.parse(code(answer)).body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False


def shell(answer: str, expected: str) -> bool:
    """The answer is a script that bash can parse (`bash -n`: read, not run), with at least one command."""
    script = code(answer)
    if not any(line.strip() and not line.strip().startswith("#") for line in script.splitlines()):
        return False
    # errors="replace": half a character at the end of a cut answer is bash's to judge.
    text = script.encode("utf-8", "replace")
    try:
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return False
    # bash warns of a here-document that never ends, and takes it.
    return done.returncode == 0 and b"warning" not in done.stderr


Check = Callable[[str, str], bool]
CHECKS: dict[str, Check] = {
    "exact": exact,
    "regex": regex,
    "contains": contains,
    "json": valid_json,
    "python": python,
    "shell": shell,
}
# These compare with what the file expects; the others look at the answer alone.
COMPARING = frozenset({"exact", "regex", "contains"})


def choose(name: str) -> Check:
    """The check of that name.

    Raises:
        InputError: it needs a program that is not here.
    """
    if name == "shell" and shutil.which("bash") is None:
        raise InputError("the check shell needs bash, and there is none on this machine", "install bash")
    return CHECKS[name]


def code(answer: str) -> str:
    """What stands in the first code block of an answer, or the whole answer where there is none."""
    found = _FENCE.search(answer)
    return found[1] if found else answer
