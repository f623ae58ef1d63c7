"""What an evaluation may say: whether an answer counts, what figures of many answers allow to say, and the page.

A person chooses the check that makes an answer a success. Nothing of an answer is ever run.
"""

from __future__ import annotations

import ast
import json
import math
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kchain.errors import InputError
from kchain.pages import render, write
from kchain.units import size

# A code block in an answer: what is checked is what stands in the first one.
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)
# Seconds for bash to read an answer.
_PATIENCE = 20
# Two-sided 95 %: the quantile of the normal distribution, and the level of every test.
_Z = 1.959963984540054
LEVEL = 0.05
# Samples of the bootstrap: the ends of the interval are then known to about a thirtieth of its width.
_ROUNDS = 4000


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
    """The answer is a JSON object or list; a bare number or word does not count."""
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
    # bash only warns of a here-document that never ends.
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


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a rate, after Wilson (1927): sensible for few trials, and at 0 and 1."""
    if not count:
        return 0.0, 1.0
    rate, weight = successes / count, _Z * _Z / count
    middle = (rate + weight / 2) / (1 + weight)
    half = _Z * math.sqrt(rate * (1 - rate) / count + weight / (4 * count)) / (1 + weight)
    # At the ends the formula is exact, its rounding is not.
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == count else middle + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """p of McNemar's exact test: how likely so uneven a split of the disagreements is, were both sides as good.

    Args:
        only_first, only_second: questions on which that side alone succeeded.
    """
    count, fewer = only_first + only_second, min(only_first, only_second)
    tail = sum(math.comb(count, k) for k in range(fewer + 1))
    # Whole numbers until here: 2 ** count is beyond a float from 1024 questions on.
    return min(1.0, float(2 * tail / 2**count))


def mean_difference(first: Sequence[float], second: Sequence[float], seed: int) -> tuple[float, float, float]:
    """(mean of second - first, and its 95 % interval): a paired bootstrap, percentiles of the resampled means.

    Args:
        first, second: of the same questions, in the same order.
    """
    differences = np.asarray(second) - np.asarray(first)
    draw = np.random.default_rng(seed)
    means = [draw.choice(differences, len(differences)).mean() for _ in range(_ROUNDS)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie, interpolated."""
    return float(np.percentile(values, 100 * share))


def page(report: Mapping[str, Any]) -> str:
    """The HTML page of a report as `evaluate` makes it; what models said is escaped."""
    memory = {
        name: "unknown" if side["peak_bytes"] is None else size(side["peak_bytes"])
        for name, side in report["sides"].items()
    }
    return render("uses", "page.html.jinja", report=report, memory=memory)


def write_page(path: Path, report: Mapping[str, Any]) -> None:
    """Write the page.

    Raises:
        InputError: it cannot be written there.
    """
    write(path, page(report))
