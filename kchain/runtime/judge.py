"""What a phase changed: the model before it and after it, by its own validation split and by those of earlier phases.

Losses come first, answers last: where the session's time gets short, what is left out is said, and the result stands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights

from . import evaluate, model, samples, tokenizer
from .contract import answer_ends
from .failure import emit, explain
from .samples import Case, Split
from .splits import Missing, unusable
from .train import prepare

LATE = "the session's time was nearly over"
GOES_ON = "the run continues in another session, which is evaluated at its end"
NO_SPLIT = "there are no validation examples"
SHOWN = 2000  # characters of a prompt that are kept, its last ones
Figures = dict[str, Any]


class Subject:
    """The model a phase began from and the one it ended with: a merged base, and the saved adapter as PEFT loads it.

    Args:
        base: folder of the merged base model.
        parameters: of the notebook.
        saved: folder of the saved adapter.
        continued: folder of the adapter whose training was continued; None: the phase began without one.
    """

    def __init__(self, base: Path, parameters: dict[str, Any], saved: Path, continued: Path | None) -> None:
        training, pad = parameters["training"], parameters["pad"]
        bare = model.load_base(base, training["precision"], training["quantization"])
        tokenizer.force_on_model(bare, pad)
        self.collate = prepare(bare, pad["id"])
        self.model: Any = PeftModel.from_pretrained(bare, saved).eval()
        self._saved, self._continued = saved, continued

    @contextmanager
    def before(self) -> Iterator[None]:
        """Inside, the model is the one that the phase began from."""
        if self._continued is None:
            with self.model.disable_adapter():
                yield
            return
        self._load(self._continued)
        try:
            yield
        finally:
            self._load(self._saved)

    def _load(self, folder: Path) -> None:
        """Other weights into the adapter that is there: peft 0.18 puts no second one on tied rows of tokens."""
        set_peft_model_state_dict(self.model, load_peft_weights(str(folder), device="cpu"))


@dataclass
class Judgement:
    """What was found.

    Attributes:
        evaluation: for the result file. `absent` says of each metric that there is none of, why.
        metrics: for the result's metrics.
    """

    evaluation: Figures = field(
        default_factory=lambda: {"splits": [], "not_judged": [], "samples": [], "styles": None, "absent": {}}
    )
    metrics: Figures = field(default_factory=dict)

    def lacks(self, names: Sequence[str], reason: str) -> None:
        """There are no such metrics."""
        self.evaluation["absent"].update(dict.fromkeys(names, reason))


class Judge:
    """Judges a subject.

    Args:
        decode: text of token ids.
    """

    def __init__(self, subject: Subject, case: Case, pad_id: int, decode: Callable[[samples.Ids], str]) -> None:
        self.subject = subject
        self.case = case
        self.decode = decode
        self.found = Judgement()
        self.pace = 0.0  # seconds a token, of the slowest pass so far
        self.bare = subject.model.get_base_model()
        self.ends = answer_ends(pad_id, self.bare.generation_config.eos_token_id)
        self.how = samples.Drawing(self.ends, case.tokens, max(case.batch, samples.TOGETHER), case.deadline)

    def judge(self) -> Judgement:
        """Everything that there is time for.

        Raises:
            Stop: the loss on the phase's own split is not finite.
        """
        self._own()
        self._earlier()
        with self._optional("samples", ("eos_rate", "eos_rate_before", "style_separation")):
            self._answers()
        return self.found

    def _own(self) -> None:
        own, found = self.case.own, self.found
        if not own.examples:
            emit("warning", message=f"{NO_SPLIT}: there is no validation loss and no token accuracy")
            found.lacks(("eval_loss", "eval_loss_before", "token_accuracy", "token_accuracy_before"), NO_SPLIT)
            return
        seen, after = self._look(own, self.case.deadline)
        split: Figures = {"phase": own.phase, "examples": seen, "before": None, "after": after}
        if seen < len(own.examples):
            emit("warning", message=f"the validation loss is that of {seen} of {len(own.examples)} examples: {LATE}")
        found.metrics.update(eval_loss=split["after"]["loss"], token_accuracy=split["after"]["token_accuracy"])
        found.evaluation["splits"].append(split)
        with self._optional("the model before this phase", ("eval_loss_before", "token_accuracy_before")):
            self._check(own)
            with self.subject.before():
                _, before = self._look(own)
            split["before"] = before
            found.metrics.update(eval_loss_before=before["loss"], token_accuracy_before=before["token_accuracy"])
        emit("judged", **split)

    def _earlier(self) -> None:
        found = self.found
        without: list[Missing] = [*self.case.not_judged]
        judged: list[Figures] = []
        for earlier in self.case.earlier:
            try:
                self._check(earlier, passes=2)
                _, after = self._look(earlier)
                with self.subject.before():
                    _, before = self._look(earlier)
            except Exception as error:  # of an earlier phase: nothing of this one is less true for it
                told = Missing if self.case.goes_on else unusable
                without.append(told(earlier.phase, _why(error)))
                continue
            split = {"phase": earlier.phase, "examples": len(earlier.examples), "before": before, "after": after}
            judged.append(split)
            emit("judged", **split)
        found.evaluation["splits"] = judged + found.evaluation["splits"]
        found.evaluation["not_judged"] = [asdict(one) for one in without]
        # A phase of which nothing is known may be the one that was forgotten.
        unknown = [one for one in without if one.kept] if judged else without
        if judged and not unknown:
            found.metrics["forgotten"] = max(split["after"]["loss"] - split["before"]["loss"] for split in judged)
        else:
            reasons = "; ".join(f"{one.phase}: {one.reason}" for one in unknown)
            found.lacks(("forgotten",), reasons or "there is no phase before this one")

    def _look(self, split: Split, deadline: float = math.inf) -> tuple[int, Figures]:
        """Of how many examples, and loss and accuracy of the model as it is now; measures how long that takes."""
        model, collate, began = self.subject.model, self.subject.collate, time.monotonic()
        seen = evaluate.evaluate(model, split.examples, collate, self.case.batch, deadline)
        share = seen.examples / len(split.examples)
        self.pace = max(self.pace, (time.monotonic() - began) / (share * _tokens(split)))
        return seen.examples, {"loss": seen.loss, "token_accuracy": seen.accuracy}

    def _check(self, split: Split | None, passes: int = 1) -> None:
        """Raises where this is not to be looked at, or there is no time for it."""
        if self.case.goes_on:
            raise _Skipped(GOES_ON)
        need = passes * self.pace * _tokens(split) if split else 0.0
        if time.monotonic() + need >= self.case.deadline:
            raise _Skipped(LATE)

    def _answers(self) -> None:
        case = self.case
        self._check(None)
        if not case.questions:
            raise _Skipped("samples.count is 0")
        if not case.own.examples:
            raise _Skipped(NO_SPLIT)
        asked = samples.questions(case.own.examples, self.ends, case.tokens)
        self.found.evaluation["samples"] = drawn = []
        for begin in range(0, min(case.questions, len(asked)), self.how.batch):
            chunk = asked[begin : min(begin + self.how.batch, case.questions)]
            try:
                drawn += self._pairs(chunk)
            except samples.Late:
                emit("warning", message=f"{len(drawn)} of {case.questions} samples: {LATE}")
                break
        if not drawn:
            raise _Skipped(LATE)
        rates = {side: sum(one[side]["ended"] for one in drawn) / len(drawn) for side in ("before", "after")}
        self.found.metrics.update(eos_rate=rates["after"], eos_rate_before=rates["before"])
        emit("samples", count=len(drawn), eos_rate=rates["after"], eos_rate_before=rates["before"])
        with self._optional("the styles", ("style_separation",)):
            self._styles(asked)

    def _pairs(self, chunk: Sequence[samples.Question]) -> list[Figures]:
        prompts = [one.prompt for one in chunk]
        after = samples.answers(self.bare, prompts, self.how)
        with self.subject.before():
            before = samples.answers(self.bare, prompts, self.how)
        return [
            {
                "prompt": self.decode(one.prompt)[-SHOWN:],
                "expected": self._text(one.expected),
                "before": self._shown(old),
                "after": self._shown(new),
            }
            for one, old, new in zip(chunk, before, after, strict=True)
        ]

    def _shown(self, answer: samples.DrawnAnswer) -> Figures:
        return {"text": self._text(answer.ids), "tokens": len(answer.ids), "ended": answer.ended}

    def _text(self, ids: samples.Ids) -> str:
        return self.decode(ids[:-1] if ids and ids[-1] in self.ends else ids)

    def _styles(self, asked: Sequence[samples.Question]) -> None:
        """The same prompts asked in each style: how far apart are the lengths of the answers?"""
        ids = list(self.case.styles.values())
        prompts = [one.prompt for one in samples.styled(asked, ids)[: self.case.questions]]
        if len(ids) < 2 or not prompts:
            lacking = ("the examples have no style tokens", "there is one style, and none to compare")
            raise _Skipped(lacking[len(ids)] if len(ids) < 2 else "no prompt of the validation split has a style")
        found: Figures = {}
        for name, style in self.case.styles.items():
            answers = samples.answers(self.bare, [samples.in_style(one, ids, style) for one in prompts], self.how)
            tokens, ended = [len(answer.ids) for answer in answers], [answer.ended for answer in answers]
            found[name] = {"tokens": sum(tokens) / len(tokens), "ended": sum(ended) / len(ended)}
        means = [style["tokens"] for style in found.values()]
        self.found.metrics["style_separation"] = max(means) / min(means)
        self.found.evaluation["styles"] = {"prompts": len(prompts), "by_style": found}
        emit("styles", separation=max(means) / min(means), **self.found.evaluation["styles"])

    @contextmanager
    def _optional(self, what: str, metrics: Sequence[str]) -> Iterator[None]:
        """Hours of training do not fail for this: what cannot be done is told."""
        try:
            yield
        except Exception as error:
            self.found.lacks([name for name in metrics if name not in self.found.metrics], _why(error))
            if not isinstance(error, _Skipped) or str(error) == LATE:
                emit("warning", message=f"{what}: not judged: {_why(error)}")


class _Skipped(Exception):
    """Why something is not judged."""


def _why(error: Exception) -> str:
    if isinstance(error, samples.Late):
        return LATE
    return str(error) if isinstance(error, _Skipped) else explain(error)[0]


def _tokens(split: Split) -> int:
    return sum(map(len, split.examples))
