"""Session logs: a JSON array once the session is over, a live event stream while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from kchain.server.runner import LOG

END = "END_OF_LOG"
_LOOK_SECONDS = 0.1


class StreamCut(Exception):
    """The stream is broken off, as a load balancer does with one that has been silent for long."""


def lines(folder: Path, position: int = 0) -> tuple[list[str], int]:
    """The whole log lines after byte `position`, and the position after them; a line still being written waits."""
    path = folder / LOG
    if not path.exists():
        return [], position
    with path.open("rb") as file:
        file.seek(position)
        data = file.read()
    whole = data[: data.rfind(b"\n") + 1]
    return whole.decode().splitlines(), position + len(whole)


def as_array(folder: Path) -> str:
    """The finished log as Kaggle stores it: one JSON array, one object {stream_name, time, data} per line."""
    return "[" + "\n,".join(lines(folder)[0]) + "\n]"


async def events(folder: Path, is_over: Callable[[], bool], cut_seconds: float | None) -> AsyncIterator[str]:
    """Server-sent events: the log from its beginning, then each line as it is written, then END_OF_LOG.

    Args:
        folder: the session's.
        is_over: asks whether the session has ended.
        cut_seconds: longest silence before the stream is broken off; None for ever.

    Raises:
        StreamCut: after that silence.
    """
    position, last = 0, time.monotonic()
    while True:
        over = await asyncio.to_thread(is_over)  # before the read: what was written up to the end is then in it
        fresh, position = lines(folder, position)
        for line in fresh:
            yield f"data: {line}\n\n"
        if fresh:
            last = time.monotonic()
        elif over:
            yield f"data: {END}\n\n"
            return
        elif cut_seconds is not None and time.monotonic() - last > cut_seconds:
            raise StreamCut
        await asyncio.sleep(_LOOK_SECONDS)
