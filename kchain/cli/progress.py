"""What a driver tells, on a terminal: one live line while a session runs; plain lines where it is not a terminal."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kchain.cli.common import as_typed
from kchain.units import duration, gib

# Lines between two progress lines of a plain log: every tenth of the way.
_PLAIN_PARTS = 10
# Columns from which a line with its bar, all figures and the stage fits.
_BAR_FITS = 90


class Terminal:
    """A Reporter for people. Use it as a context: the live line is taken down at its end.

    Args:
        console: where to print; a live line only where it is a terminal.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._lock = threading.Lock()
        self._waiting = ""
        self._session = _Session()
        self._told = -1

    def __enter__(self) -> Terminal:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, phase: str, text: str) -> None:
        with self._lock:
            self._session, self._waiting, self._told = _Session(), "", -1
            self._line(phase, text)
            self._show(phase)

    def waiting(self, phase: str, text: str) -> None:
        with self._lock:
            # A countdown in the text is no news for a log file.
            news = "".join(character for character in text if not character.isdigit())
            if self._live is None and news != self._waiting:
                self._line(phase, text)
            self._waiting = news
            self._session.text = text
            self._show(phase)

    def event(self, phase: str, event: Mapping[str, Any]) -> None:
        with self._lock:
            match event.get("event"):
                case "stage":
                    self._session.stage = str(event.get("stage", ""))
                    if self._live is None:
                        self._line(phase, f"stage {self._session.stage}")
                case "step":
                    self._session.step(event)
                    part = int(self._session.share * _PLAIN_PARTS)
                    if self._live is None and part > self._told:
                        self._told = part
                        self._line(phase, self._session.words())
                case "answered":
                    self._session.stage = f"{event.get('side')} {event.get('count')}/{event.get('of')}"
                case "warning":
                    self._line(phase, f"warning: {event.get('message')}")
                case "source" if event.get("error"):
                    self._line(phase, f"source {event.get('name')} skipped: {event.get('error')}")
                case "source" if event.get("broken"):
                    self._line(phase, f"source {event.get('name')}: {event.get('broken')} rows could not be used")
                case "judged" | "samples" | "styles":
                    self._line(phase, judged_words(event))
                case "failed":
                    self._line(phase, f"failed in {event.get('stage')}: {event.get('reason')}")
            self._show(phase)

    def _line(self, phase: str, text: str) -> None:
        words = as_typed(text.removeprefix(f"{phase} "))
        self._console.print(f"[bold]{escape(phase)}[/]  {escape(words)}", soft_wrap=True)

    def _show(self, phase: str) -> None:
        if self._live is not None:
            self._live.update(self._session.render(phase, bar=self._console.width >= _BAR_FITS), refresh=True)


class _Session:
    """The running session as its events describe it."""

    def __init__(self) -> None:
        self.text = ""
        self.stage = ""
        self._step: Mapping[str, Any] = {}
        self._first: tuple[float, int] | None = None

    def step(self, event: Mapping[str, Any]) -> None:
        self._step = event
        if self._first is None:
            self._first = (time.monotonic(), int(event.get("step") or 0))

    @property
    def share(self) -> float:
        steps = self._step.get("steps") or 0
        return float(self._step.get("step") or 0) / float(steps) if steps else 0.0

    def words(self) -> str:
        """`step 40/120  loss 1.234  5 min left`."""
        parts = [f"step {self._step.get('step')}/{self._step.get('steps')}"]
        if isinstance(loss := self._step.get("loss"), int | float):
            parts.append(f"loss {loss:.3f}")
        if isinstance(memory := self._step.get("memory_bytes"), int | float) and memory > 0:
            parts.append(gib(int(memory)))
        if (left := self._left()) is not None:
            parts.append(f"{duration(left / 3600)} left")
        return "  ".join(parts)

    def render(self, phase: str, *, bar: bool) -> Table:
        """The live line; without its bar where the terminal is narrow: the figures matter more."""
        line = Table.grid(padding=(0, 2))
        cells: list[Any] = [Text(phase, style="bold")]
        if self._step:
            cells += [ProgressBar(total=1.0, completed=self.share, width=24)] if bar else []
            cells.append(Text(self.words(), no_wrap=True, overflow="ellipsis"))
        else:
            cells.append(Text(self.text.removeprefix(f"{phase} "), no_wrap=True, overflow="ellipsis"))
        if self.stage:
            cells.append(Text(self.stage, style="dim"))
        line.add_row(*cells)
        return line

    def _left(self) -> float | None:
        """Seconds to the last step, from the pace since the first event."""
        if self._first is None:
            return None
        since, first = self._first
        done = int(self._step.get("step") or 0) - first
        left = int(self._step.get("steps") or 0) - int(self._step.get("step") or 0)
        return (time.monotonic() - since) / done * left if done > 0 else None


def judged_words(event: Mapping[str, Any]) -> str:
    """What a session found out about itself: `validation loss 11.717 -> 0.980, accuracy 0.0% -> 71.5% on phase1`."""
    if event.get("event") == "judged":
        losses = _change(event, "loss", "{:.3f}")
        return (
            f"validation loss {losses}, accuracy {_change(event, 'token_accuracy', '{:.1%}')} on {event.get('phase')}"
        )
    if event.get("event") == "samples":
        rates = [event.get("eos_rate_before"), event.get("eos_rate")]
        return f"answers that end by themselves {' -> '.join(_figure(rate, '{:.0%}') for rate in rates)}"
    return f"answers in the longest style are {_figure(event.get('separation'), '{:.1f}')} times as long"


def _change(event: Mapping[str, Any], key: str, form: str) -> str:
    sides = [side for side in (event.get("before"), event.get("after")) if isinstance(side, Mapping)]
    return " -> ".join(_figure(side.get(key), form) for side in sides)


def _figure(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else "unknown"
