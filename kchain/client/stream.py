"""A session's log as it comes.

A live log comes as server-sent events and is cut every few minutes; each new connection starts again at the first
event. Events already seen are recognised by what they are, not by counting, so a trimmed or reordered replay loses
nothing.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import requests

from kchain.client.answers import LogLine
from kchain.client.log import Lines, decoded, event_of, events_of
from kchain.client.translate import Call, foreign_errors
from kchain.client.transport import read_within
from kchain.errors import KchainError, Unreachable

END_OF_LOG = "END_OF_LOG"
# New connections after a refusal, and after connections that brought nothing new (each may stay silent for a minute).
_REFUSALS = 5
_SILENCES = 20
_LONGEST_PAUSE = 30.0
_WHOLE_LOG_SECONDS = 300.0
_LARGEST_LOG = 256 * 2**20
_END = object()


def follow(connect: Callable[[], requests.Response], call: Call, pause: float = 1.0) -> Iterator[LogLine]:
    """The lines of a session's log as they come, until it ends or is no longer there.

    Args:
        connect: opens the stream; where it refuses at first, the iteration ends at once.
        call: what is being done, for errors.
        pause: seconds before a new connection; doubles while the target refuses.
    """
    lines, seen = Lines(), _Seen()
    refused = silent = 0
    while silent < _SILENCES:
        try:
            response = connect()
        except KchainError:
            refused += 1
            if seen.count == 0 or refused >= _REFUSALS:
                return
            time.sleep(min(pause * 2**refused, _LONGEST_PAUSE))
            continue
        refused, count = 0, seen.count
        seen.start_again()
        with contextlib.suppress(Unreachable):
            for event in _events(response, call):
                if event is _END:
                    yield from lines.end()
                    return
                if seen.is_new(event):
                    yield from lines.add(event)
        silent = 0 if seen.count > count else silent + 1
        time.sleep(pause)


class _Seen:
    """Events of one log by their content, and how many of them a replay has to repeat before one is new."""

    def __init__(self) -> None:
        self.count = 0
        self._before: Counter[str] = Counter()
        self._now: Counter[str] = Counter()

    def start_again(self) -> None:
        """A new connection: what came until now may come again."""
        self._before |= self._now
        self._now = Counter()

    def is_new(self, event: Any) -> bool:
        key = json.dumps(event, sort_keys=True)
        self._now[key] += 1
        new = self._now[key] > self._before[key]
        self.count += new
        return new


def _events(response: requests.Response, call: Call) -> Iterator[Any]:
    """The events of one connection, `_END` last where the log is complete.

    Raises:
        KchainError: the connection broke.
    """
    with foreign_errors(call), contextlib.closing(response):
        if not str(response.headers.get("Content-Type", "")).lower().startswith("text/event-stream"):
            body = read_within(response, _WHOLE_LOG_SECONDS, _LARGEST_LOG)
            yield from events_of(body.decode("utf-8", errors="replace"))
            yield _END
            return
        for line in _lines_of_bytes(response):
            if line.startswith("data:"):
                payload = line.removeprefix("data:").strip()
                if payload == END_OF_LOG:
                    yield _END
                    return
                yield decoded(payload)


def _lines_of_bytes(response: requests.Response) -> Iterator[str]:
    """Lines as they arrive, cut at line feeds alone (U+2028 and its like are text) and decoded as UTF-8, always."""
    rest = b""
    while part := response.raw.read1(65536, decode_content=True):
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.decode("utf-8", errors="replace")


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
