"""The session of an evaluation on the target: the functions of `kchain evaluate`, one stage each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kchain.evaluation.checks import choose
from kchain.evaluation.questions import Questions, read_questions
from kchain.export.use import Use
from kchain.runtime.events import emit
from kchain.runtime.failure import Stop
from kchain.runtime.files import write_json

REPORT, PAGE = "evaluation.json", "evaluation.html"
# Answers between two progress events.
TOLD = 5


def start(parameters: dict[str, Any], bundle: str) -> Evaluate:
    """Begins a session; from now on `kchain-result.json` tells the truth, even if the machine dies."""
    return Evaluate(parameters, bundle)


class Evaluate(Use):
    """Base and chain are asked the same questions."""

    questions: Questions
    report: dict[str, Any]

    def ask(self) -> None:
        """Asks both sides; the report lies in the output as soon as it is known."""
        with self._stage("ask"):
            from kchain.evaluation.page import write_page
            from kchain.evaluation.run import evaluate

            table = self.table
            self.report = evaluate(
                self.subject, self.questions, table["check"], table["max_tokens"], self.precision, self._tell
            )
            write_json(self.paths.working / REPORT, self.report)
            write_page(self.paths.working / PAGE, self.report)
            self._tell_probe(self.report["probe"])
            self.result["metrics"] = metrics(self.report)
            self.result["found"] = found(self.report)

    def _look(self) -> None:
        choose(self.table["check"])
        subject, table = self.subject, self.table
        self.questions = read_questions(
            self._file(), table["check"], subject.system_prompt, table["limit"], subject.seed
        )
        emit("questions", file=self.questions.path.name, held=self.questions.held, asked=len(self.questions.asked))

    def _file(self) -> Path:
        """The project's own file, or what the session of the phase kept aside."""
        if self.table["file"]:
            return Path(self.paths.scratch, "project", self.table["file"])
        folder = self.subject.last.folder
        places = [place / "validation.jsonl" for place in (folder.parent, folder)]
        for place in places:
            if place.is_file():
                return place
        raise Stop(f"{places[0]}: the session of {self.subject.phase} kept no questions aside", "set evaluate.file")

    def _tell(self, side: str, count: int) -> None:
        self._check_time(f"{count} answers of the {side}")
        if count % TOLD == 0 or count == len(self.questions.asked):
            emit("answered", side=side, count=count, of=len(self.questions.asked))

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
