"""How often and how long a read is tried again. Nothing with an effect is ever tried again here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, stop_after_delay
from tenacity.wait import wait_exponential, wait_random

from kchain.errors import Ambiguous, Unreachable
from kchain.orchestrator.mapping import Declined, Throttled

Value = TypeVar("Value")


@dataclass(frozen=True)
class Patience:
    """Limits of one read, in seconds.

    Attributes:
        connect: until a connection stands.
        silence: between two bytes of an answer.
        answer: for a whole answer, however it drips.
        attempts: tries in all.
        first: pause after the first failed try; doubles, with jitter.
        longest: longest pause, also the longest Retry-After that is waited for here.
        total: no new try starts after this.
    """

    connect: float = 10.0
    silence: float = 60.0
    answer: float = 300.0
    attempts: int = 4
    first: float = 0.5
    longest: float = 20.0
    total: float = 90.0

    @property
    def timeout(self) -> tuple[float, float]:
        """What requests calls a timeout."""
        return self.connect, self.silence

    def insist(self, read: Callable[[], Value]) -> Value:
        """Try a read until it answers, fails for good, or patience ends; then its last error is raised."""
        backoff = wait_exponential(multiplier=self.first, max=self.longest) + wait_random(0, self.first)

        def pause(state: RetryCallState) -> float:
            return max(float(backoff(state)), _wanted_pause(state))

        trying = Retrying(
            stop=stop_after_attempt(self.attempts) | stop_after_delay(self.total),
            wait=pause,
            retry=retry_if_exception(self._may_pass),
            sleep=time.sleep,
            reraise=True,
        )
        return trying(read)

    def _may_pass(self, error: BaseException) -> bool:
        if isinstance(error, Throttled):
            return error.retry_after is None or error.retry_after <= self.longest
        return isinstance(error, Unreachable) and not isinstance(error, Ambiguous | Declined)


def _wanted_pause(state: RetryCallState) -> float:
    """The pause the target asked for, in seconds; 0 where it asked for none."""
    error = state.outcome.exception() if state.outcome else None
    return error.retry_after or 0.0 if isinstance(error, Throttled) else 0.0
