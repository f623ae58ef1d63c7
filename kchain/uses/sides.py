"""Both sides answer the same questions, one by one and greedily: what they said, what it cost, and which is better."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from kchain.uses.questions import HeldOutQuestion
from kchain.uses.report import LEVEL, Check, mcnemar, mean_difference, percentile, wilson
from kchain.uses.sampling import Sampling
from kchain.uses.speaker import Reply, Speaker

# Resampling fewer pairs gives intervals that are far too narrow.
_FEWEST = 10
# The first answer of a process pays for everything that is set up once; it is not counted.
_WARM_UP = Sampling(max_tokens=2)
# Where Linux tells the most memory that this process held, and where that mark is set back.
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Side:
    """One model's answers, which of them passed the check, and the most memory it took in bytes (None: unknown)."""

    answers: tuple[Reply, ...]
    passed: tuple[bool, ...]
    peak_bytes: int | None

    def figures(self) -> dict[str, Any]:
        """The row of the table, as JSON."""
        seconds = [answer.seconds for answer in self.answers]
        tokens = sum(answer.tokens for answer in self.answers)
        low, high = wilson(sum(self.passed), len(self.passed))
        return {
            "passed": sum(self.passed),
            "questions": len(self.passed),
            "success_rate": sum(self.passed) / len(self.passed),
            "success_interval": [low, high],
            "mean_latency": sum(seconds) / len(seconds),
            "p95_latency": percentile(seconds, 0.95),
            "tokens_per_second": tokens / sum(seconds),
            "mean_tokens": tokens / len(seconds),
            "ended_rate": sum(answer.ended for answer in self.answers) / len(seconds),
            "peak_bytes": self.peak_bytes,
        }


def ask(
    load: Callable[[], Speaker],
    questions: Sequence[HeldOutQuestion],
    check: Check,
    settings: Sampling,
    tell: Callable[[int], None],
) -> Side:
    """One side: loaded, asked everything, and gone from memory again.

    Args:
        tell: called with the number of answers so far.
    """
    gc.collect()
    _begin_peak()
    speaker = load()
    speaker.answer(questions[0].turns, _WARM_UP)
    answers = []
    for number, question in enumerate(questions, 1):
        answers.append(speaker.answer(question.turns, settings))
        tell(number)
    passed = tuple(check(answer.text, question.expected) for answer, question in zip(answers, questions, strict=True))
    return Side(tuple(answers), passed, _peak())


def _begin_peak() -> None:
    """Begin to measure memory anew: the GPU's where there is one, else the process's. Elsewhere there is no figure."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    elif _CLEAR.exists():
        _CLEAR.write_text("5", encoding="ascii")  # the kernel's word for "set the high-water mark back"


def _peak() -> int | None:
    """Bytes since `_begin_peak`: allocated on the GPU, or resident in memory; None where it is unknown."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii")) if _STATUS.exists() else None
    return int(found[1]) * 1024 if found else None


@dataclass(frozen=True)
class Comparison:
    """Which side is better, as far as the answers show it.

    Attributes:
        better, faster: "base", "chain", or "" where no difference is shown.
        questions: how many were asked.
        base_only, chain_only: questions on which that side alone succeeded.
        p: of McNemar's exact test on them.
        slower_by: seconds by which the chain's mean latency is longer, and its 95 % interval.
    """

    better: str
    faster: str
    questions: int
    base_only: int
    chain_only: int
    p: float
    slower_by: tuple[float, float, float]

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "slower_by": list(self.slower_by), "words": self.words()}

    def words(self) -> str:
        """The verdict in one sentence."""
        found = f"The {self.better} is better" if self.better else "No difference in success shown"
        right = f"{self.chain_only} questions the chain alone got right, {self.base_only} the base alone"
        success = f"{found} ({right}, p = {self.p:.2g})"
        if self.questions < _FEWEST:
            few = f"so few answers ({self.questions}) tell nothing about time: at least {_FEWEST} are needed"
            return f"{success}; {few}."
        mean, low, high = self.slower_by
        speed = f"the {self.faster} answers faster" if self.faster else "no difference in time shown"
        times = f"the chain's time less the base's: {mean:+.2f} s, 95 % interval {low:+.2f} to {high:+.2f}"
        return f"{success}; {speed} ({times})."


def compare(base: Side, chain: Side, seed: int) -> Comparison:
    """The verdict on two sides that answered the same questions."""
    pairs = list(zip(base.passed, chain.passed, strict=True))
    base_only, chain_only = pairs.count((True, False)), pairs.count((False, True))
    p = mcnemar(base_only, chain_only)
    better = "" if p >= LEVEL else "chain" if chain_only > base_only else "base"
    seconds = [[answer.seconds for answer in side.answers] for side in (base, chain)]
    mean, low, high = mean_difference(seconds[0], seconds[1], seed)
    faster = "" if len(pairs) < _FEWEST else "chain" if high < 0 else "base" if low > 0 else ""
    return Comparison(better, faster, len(pairs), base_only, chain_only, p, (mean, low, high))
