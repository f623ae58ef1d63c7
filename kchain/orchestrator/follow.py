"""Progress of a running session from its live log, read in a thread beside the status polls.

Progress is a comfort: when the stream is not there or breaks, nothing but the progress is missing.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kchain.errors import KchainError
from kchain.orchestrator.answers import LogLine

# What the runtime puts in front of every event it prints.
PREFIX = "kchain: "


def event_of(line: str) -> dict[str, Any] | None:
    """The event that a log line carries; None: it carries none."""
    if not line.startswith(PREFIX):
        return None
    try:
        event = json.loads(line.removeprefix(PREFIX))
    except ValueError:
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


class Follower:
    """Follows one session; every event is handed on once, also when the stream starts again from its beginning.

    Args:
        lines: opens the log from its beginning.
        on_event: gets every event.
        on_end: called from the follower's thread when a log that had something to say has ended.
    """

    def __init__(
        self,
        lines: Callable[[], Iterable[LogLine]],
        on_event: Callable[[Mapping[str, Any]], None],
        on_end: Callable[[], None],
    ) -> None:
        self._lines = lines
        self._on_event = on_event
        self._on_end = on_end
        self._seen = 0
        self._stopped = False
        self._thread: threading.Thread | None = None

    def ensure_running(self) -> None:
        """Start following, again if the stream has ended."""
        if self._stopped or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._follow, name="kchain-log", daemon=True)
        self._thread.start()

    def finish(self, patience: float) -> None:
        """Wait `patience` seconds for the last lines, then hand on nothing more."""
        if self._thread is not None:
            self._thread.join(patience)
        self._stopped = True

    def _follow(self) -> None:
        seen_before = self._seen
        try:
            for number, line in enumerate(self._lines(), start=1):
                if self._stopped:
                    return
                if number > self._seen:
                    self._seen = number
                    if (event := event_of(line.text)) is not None:
                        self._on_event(event)
        except KchainError:
            # The status polls go on and will say what is wrong, if anything is.
            return
        if self._seen > seen_before:
            self._on_end()
