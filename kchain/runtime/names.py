"""How a session shares out its time: training stops in time for judging, and judging in time for the result."""

from __future__ import annotations

# Share of the session's time, and the least and the most of it in seconds, that is left for judging and saving.
RESERVE = 0.1
LEAST_RESERVE = 60.0
MOST_RESERVE = 900.0
# Share of that in which nothing is judged any more, and the result is written.
SAVING = 0.25


def reserve(limit: float) -> float:
    """Seconds that a session of `limit` seconds leaves for judging and saving; a very short one leaves a third."""
    return max(min(RESERVE * limit, MOST_RESERVE), min(LEAST_RESERVE, limit / 3))


def judging(limit: float) -> float:
    """Seconds of that reserve until judging must be over."""
    return (1 - SAVING) * reserve(limit)
