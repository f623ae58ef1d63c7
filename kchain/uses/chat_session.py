"""The session that answers on the target: the functions of `kchain chat`, one stage each, and `ask` for a person."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kchain.errors import InputError
from kchain.runtime.failure import Stop, emit
from kchain.uses.sampling import Styles
from kchain.uses.subject import UseSession

if TYPE_CHECKING:
    from kchain.uses.conversation import Conversation

ANSWERS = "answers.jsonl"
# Keys of the phase's table that say how an answer is drawn; a style may change some of them.
DRAWN = ("max_tokens", "temperature", "top_p", "repetition_penalty", "seed")


def start(parameters: dict[str, Any], bundle: str) -> Generate:
    """Begins a session; from now on `kchain-result.json` tells the truth, even if the machine dies."""
    return Generate(parameters, bundle)


class Generate(UseSession):
    """The chain, loaded once, answers the prompts of its phase file, and then whoever asks."""

    prompts: list[str]
    talk: Conversation

    def load(self) -> None:
        """Loads base and adapters, merged root first, with the last adapter's tokenizer; resizes nothing that fits."""
        with self._stage("load"):
            from kchain.uses.conversation import Conversation
            from kchain.uses.speaker import compare_probe, load_chain

            speaker = load_chain(self.subject, self.precision)
            probe = compare_probe(speaker, self.subject.last.result)
            self._tell_probe(None if probe is None else asdict(probe))
            self.talk = Conversation(speaker, self.subject, None, None, self._styles(), {})

    def answer(self) -> None:
        """Answers every prompt in every style; each answer is in the output as soon as it is known."""
        with self._stage("answer"):
            rows = []
            with (self.paths.working / ANSWERS).open("w", encoding="utf-8") as file:
                for row in self._answers():
                    rows.append(row)
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
                    file.flush()
            self.result.metrics = metrics(rows)
            self.result.found = found(rows)

    def by_hand(self) -> tuple[Callable[..., None], Callable[[], None]]:
        """`ask` and `new`: what a person types in the notebook's last cells."""
        self.talk.choose_style(None)
        self.talk.begin()

        def ask(question: str, style: str | None = None) -> None:
            """Print the answer, word by word; what was said before is remembered. A style stays until another one."""
            if style is not None:
                self.talk.choose_style(style)
            self.talk.ask(question, lambda text: print(text, end="", flush=True))
            print()

        return ask, self.talk.begin

    def _answers(self) -> Iterator[dict[str, Any]]:
        styles = self.table["styles"] or [None]
        for number, prompt in enumerate(self.prompts, 1):
            for style in styles:
                self._check_time(f"{number - 1} of {len(self.prompts)} prompts, whose answers are in {ANSWERS}")
                self.talk.begin()
                self.talk.choose_style(style)
                yield {"prompt": prompt, "style": style, **asdict(self.talk.ask(prompt))}
            emit("answered", side="chain", count=number, of=len(self.prompts))

    def _check_task(self) -> None:
        file = self.table["file"]
        of_file = _read_prompts(Path(self.paths.scratch, "project", file)) if file else []
        self.prompts = [*self.table["prompts"], *of_file][: self.table["limit"]]
        self._check_styles()

    def _check_styles(self) -> None:
        from kchain.runtime import tokenizer

        subject = self.subject
        known = tokenizer.load(subject.base, subject.pad, subject.adapters)
        try:
            tokenizer.check_styles(known, [*self.table["styles"], *self.table["settings"]])
        except Stop as stop:
            trained = ", ".join(subject.tokens) or "none"
            raise Stop(stop.reason, f"correct generate.styles; tokens that this chain trained: {trained}") from None

    def _styles(self) -> Styles:
        """How an answer is drawn in each style, and without one."""
        usual = {key: self.table[key] for key in DRAWN}
        tables = self.table["settings"]
        names = ["", *self.table["styles"], *self.subject.tokens, *tables]
        changed = {name: {k: v for k, v in tables.get(name, {}).items() if v is not None} for name in names}
        return {name: {**usual, **changes} for name, changes in changed.items()}

    def _shorter(self) -> str:
        return "raise session_timeout, lower generate.max_tokens, or ask less"


def metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of all answers, and the mean number of tokens of each style."""
    styles = dict.fromkeys(row["style"] for row in rows)
    means = {style or "": _mean([row["tokens"] for row in rows if row["style"] == style]) for style in styles}
    return {
        "answers": len(rows),
        "ended_rate": _mean([float(row["ended"]) for row in rows]),
        "mean_latency": _mean([row["seconds"] for row in rows]),
        "mean_tokens": means,
    }


def found(rows: list[dict[str, Any]]) -> str:
    """The answers in one line."""
    told = metrics(rows)
    lengths = ", ".join(f"{style} {mean:.1f}".strip() for style, mean in told["mean_tokens"].items())
    return f"{told['answers']} answers, {told['ended_rate']:.0%} ended by themselves; tokens on average: {lengths}"


def _read_prompts(path: Path) -> list[str]:
    """The prompts of a file of JSON lines."""
    prompts = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            prompt = row.get("prompt") if isinstance(row, dict) else None
            if not isinstance(prompt, str) or not prompt.strip():
                raise InputError(f"{path.name}: line {number}: has no prompt", 'write {"prompt": "..."}')
            prompts.append(prompt)
    return prompts


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
