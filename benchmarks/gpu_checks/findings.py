"""What a check finds: figures, what does not hold, and what could not be looked at here."""

from __future__ import annotations

from typing import Any


class Findings:
    """Of one check, which passes where something was looked at and nothing failed."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}
        self.held: list[str] = []
        self.failed: list[str] = []
        self.skipped: list[str] = []

    def must(self, what: str, holds: bool) -> None:
        """Something that the check asks for."""
        (self.held if holds else self.failed).append(what)

    def tell(self, **figures: Any) -> None:
        """Figures, for the table and the JSON."""
        self.figures.update(figures)

    def skip(self, what: str) -> None:
        """What could not be looked at, and why."""
        self.skipped.append(what)

    @property
    def verdict(self) -> str:
        """PASS, FAIL or SKIP."""
        if self.failed:
            return "FAIL"
        return "PASS" if self.held else "SKIP"

    def as_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return {"verdict": self.verdict, **vars(self)}
