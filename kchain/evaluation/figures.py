"""What numbers of successes and seconds allow to say. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

# Two-sided 95 %: the quantile of the normal distribution, and the level of every test.
_Z = 1.959963984540054
LEVEL = 0.05
# Samples of the bootstrap: the ends of the interval are then known to about a thirtieth of its width.
_ROUNDS = 4000


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
    """(mean of second - first, and its 95 % interval): pairs drawn anew with replacement, percentiles of the means.

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
