"""Whole lines out of Kaggle's log events, and kchain's own events out of the lines. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import from_json

from kchain.client.answers import LogLine
from kchain.runtime.contract import EVENT_PREFIX


class Lines:
    """Puts log events together to whole lines, stream by stream."""

    def __init__(self) -> None:
        self._open: dict[str, LogLine] = {}

    def add(self, event: Any) -> Iterator[LogLine]:
        """The lines that an event completes; anything that is not an event counts as text of its own."""
        fields = event if isinstance(event, dict) else {"data": f"{event}\n"}
        data = fields.get("data")
        if data is None:
            return
        stream, time = str(fields.get("stream_name") or "stdout"), fields.get("time")
        moment = float(time) if isinstance(time, int | float) else 0.0
        text = str(data)
        if text.startswith(EVENT_PREFIX):
            yield from self._close(stream)
        *whole, rest = text.split("\n")
        for part in whole:
            start = self._open.pop(stream, LogLine(stream, moment, ""))
            yield LogLine(stream, start.time, (start.text + part).removesuffix("\r"))
        if rest:
            start = self._open.get(stream, LogLine(stream, moment, ""))
            self._open[stream] = LogLine(stream, start.time, start.text + rest)

    def end(self) -> Iterator[LogLine]:
        """Lines that never got their end."""
        for stream in list(self._open):
            yield from self._close(stream)

    def _close(self, stream: str) -> Iterator[LogLine]:
        if stream in self._open:
            yield self._open.pop(stream)


def lines_of(log: str) -> list[LogLine]:
    """The lines of a finished log, as ListKernelSessionOutput gives it: a JSON array of events, or plain text."""
    lines = Lines()
    found = [line for event in events_of(log) for line in lines.add(event)]
    return [*found, *lines.end()]


def events_of(log: str) -> list[Any]:
    """The events of a finished log, whichever way it is written."""
    events = decoded(log)
    if events is log:  # no JSON: plain text
        return list(log.splitlines())
    return list(events) if isinstance(events, list) else [events]


def decoded(text: str) -> Any:
    """The value that a JSON text stands for; the text itself where it is not JSON."""
    try:
        return from_json(text)
    except ValueError:
        return text


def event_of(line: str) -> dict[str, Any] | None:
    """The event that a line carries, as kchain's runtime prints them; None: it carries none."""
    event = decoded(line.removeprefix(EVENT_PREFIX)) if line.startswith(EVENT_PREFIX) else None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None
