"""The session of an evaluation on the target: the functions of `kchain evaluate`, one stage each."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from kchain.runtime.failure import Stop, emit
from kchain.runtime.files import write_json
from kchain.uses.questions import HeldOut, read_questions, validation_set
from kchain.uses.report import choose
from kchain.uses.subject import UseSession

REPORT, PAGE = "evaluation.json", "evaluation.html"
# Answers between two progress events.
TOLD = 5
# Answers of the base after which the rest is estimated, and how far beyond the session's time that estimate may be.
FORESEEN, TOLERANCE = 10, 1.25


def start(parameters: dict[str, Any], bundle: str) -> Evaluate:
    """Begins a session; from now on `kchain-result.json` tells the truth, even if the machine dies."""
    return Evaluate(parameters, bundle)


class Evaluate(UseSession):
    """Base and chain are asked the same questions."""

    questions: HeldOut
    report: dict[str, Any]
    first: float  # time.monotonic() at the base's first answer

    def ask(self) -> None:
        """Asks both sides; the report is in the output as soon as it is known."""
        with self._stage("ask"):
            from kchain.uses.evaluate import evaluate
            from kchain.uses.report import write_page

            table = self.table
            self.report = evaluate(
                self.subject, self.questions, table["check"], table["max_tokens"], self.precision, self._tell
            )
            write_json(self.paths.working / REPORT, self.report)
            write_page(self.paths.working / PAGE, self.report)
            self._tell_probe(self.report["probe"])
            self.result.metrics = metrics(self.report)
            self.result.found = found(self.report)

    def _check_task(self) -> None:
        choose(self.table["check"])
        prompt, table, seed = self.subject.system_prompt, self.table, self.subject.seed
        own = Path(self.paths.scratch, "project", table["file"]) if table["file"] else None
        file = own or validation_set(self.subject, "set evaluate.file")
        told = read_questions(file, table["check"], prompt, table["limit"], seed, written=own is not None)
        self.questions = told
        emit("questions", file=told.path.name, held=told.held, left_out=told.left_out, asked=len(told.asked))

    def _tell(self, side: str, count: int) -> None:
        self._check_time(f"{count} answers of the {side}")
        if side == "base":
            self._foresee(count)
        if count % TOLD == 0 or count == len(self.questions.asked):
            emit("answered", side=side, count=count, of=len(self.questions.asked))

    def _foresee(self, count: int) -> None:
        """Stops early where there is no time to ask both sides everything: half an evaluation says nothing."""
        if count == 1:
            self.first = time.monotonic()
        if count < FORESEEN:
            return
        asked, pace = len(self.questions.asked), (time.monotonic() - self.first) / (count - 1)
        left, needed = self._left(), pace * (2 * asked - count)
        if needed > TOLERANCE * left:
            fit = max(1, int((left + pace * count) / (2 * pace)))
            raise Stop(
                f"at {pace:.1f} s an answer, {asked} questions to base and chain do not fit into the session's "
                f"{self.parameters['session_timeout']} s",
                f"about {fit} would: set evaluate.limit; or raise session_timeout, or lower evaluate.max_tokens",
            )

    def _shorter(self) -> str:
        return "raise session_timeout, or lower evaluate.limit or evaluate.max_tokens"


def metrics(report: dict[str, Any]) -> dict[str, Any]:
    """What gates and tables ask of a report."""
    base, chain = report["sides"]["base"], report["sides"]["chain"]
    return {
        "success_rate": chain["success_rate"],
        "base_success_rate": base["success_rate"],
        "questions": chain["questions"],
        "better": report["verdict"]["better"],
        "mean_latency": chain["mean_latency"],
        "base_mean_latency": base["mean_latency"],
        "ended_rate": chain["ended_rate"],
    }


def found(report: dict[str, Any]) -> str:
    """The report in one line."""
    base, chain = report["sides"]["base"], report["sides"]["chain"]
    verdict = report["verdict"]
    better = f"the {verdict['better']} is better" if verdict["better"] else "no difference shown"
    faster = f"; the {verdict['faster']} answers faster" if verdict["faster"] else ""
    sides = f"{report['check']}: chain {chain['success_rate']:.1%}, base {base['success_rate']:.1%}"
    return f"{sides} of {chain['questions']} questions: {better} (p = {verdict['p']:.2g}){faster}"
