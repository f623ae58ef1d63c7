"""How good the examples are before anything is trained on them: faults counted and shown, lengths, languages."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from . import faults
from .data import Mix
from .examples import Example
from .languages import language
from .lots import normalized

SHOWN = 3  # examples of a fault that are shown ...
CHARACTERS = 300  # ... and how much of each
BARS = 24  # of a histogram
SHARED = 0.005  # share of all answers, and ...
SHARED_LEAST = 10  # ... number of them, from which an answer counts as repeated
RARE = 0.1  # share of a language among the answers below which it is out of line
LEAST_KNOWN = 20  # answers of known language, to speak of a line
FAR = 4.0  # standard deviations of the logarithm of the length from the middle of all
LEAST_DEVIATION = 0.5
# Fault -> what it says of so many, in words.
WORDS = {
    "bare_numbers": "answers are a number and nothing else",
    "empty": "answers are empty",
    "truncated": "answers end in the middle",
    "repeated": "answers are shared by many examples",
    "loops": "answers say the same over and over",
    "copied": "answers only repeat the prompt",
    "odd_language": "answers are in a language that few others are in",
    "odd_length": "answers are far longer or shorter than the others",
    "role_order": "conversations are out of order",
    "leaked_templates": "examples hold marks of a chat template",
    "too_long": "examples are longer than max_length, and are cut",
    "overlap": "examples to judge by have a prompt that is also trained on",
    "broken": "rows could not be used",
}


@dataclass(frozen=True)
class Tokens:
    """Lengths of the examples in tokens, the most that are kept of one, and how many have more."""

    lengths: list[int]
    cap: int
    too_long: int


@dataclass(frozen=True)
class Answer:
    """One answer: the number of its example, what was asked, what was answered."""

    example: int
    prompt: str
    text: str

    def show(self) -> dict[str, Any]:
        """For a reader: the beginning of the question, the end of the answer (faults are there)."""
        answer = self.text if len(self.text) <= CHARACTERS else f"{self.text[:100]} … {self.text[-CHARACTERS + 100 :]}"
        return {"example": self.example, "prompt": self.prompt[:CHARACTERS], "answer": answer}


def examine(mix: Mix, tokens: Tokens | None = None) -> dict[str, Any]:
    """Everything that is known of a mix; without tokens, lengths are in characters and nothing is too long.

    Returns:
        {"train", "validation": counts, "faults": {name: {"count", "of", "share", "shown"}}, "lengths", "answers":
        histograms, "languages": {name: count}, "sources": counts of each}.
    """
    examples = mix.train + mix.validation
    answers = [
        Answer(number, prompt, said)
        for number, example in enumerate(examples)
        for prompt, said in faults.pairs(example)
    ]
    languages = [language(answer.text) for answer in answers]
    found = _answer_faults(answers) | _line_faults(answers, languages) | _example_faults(mix, examples, answers)
    if tokens is not None:
        found["too_long"] = {"count": tokens.too_long, "of": max(len(tokens.lengths), tokens.too_long), "shown": []}
    found["broken"] = _broken(mix)
    for fault in found.values():
        fault["share"] = fault["count"] / fault["of"] if fault["of"] else 0.0
    return {
        "train": len(mix.train),
        "validation": len(mix.validation),
        "faults": {name: found[name] for name in WORDS if name in found},
        "lengths": _lengths(tokens.lengths, "tokens", tokens.cap) if tokens else _lengths(map(_size, examples)),
        "answers": _lengths(len(answer.text) for answer in answers),
        "languages": dict(Counter(name for name in languages if name).most_common()),
        "sources": [report.counts() for report in mix.reports],
    }


def problems(found: Mapping[str, Any], most: Mapping[str, float]) -> list[str]:
    """What is above its threshold, in words; empty where the examples are good enough.

    Args:
        found: what `examine` gave.
        most: share that is allowed, by the name of the fault; one that is not named is not asked.
    """
    return [
        f"{fault['count']:,} of {fault['of']:,} {WORDS[name]} ({fault['share']:.2%}; "
        f"data.quality.{name} allows {most[name]:.2%})"
        for name, fault in found["faults"].items()
        if name in most and fault["share"] > most[name]
    ]


def advice(found: Mapping[str, Any], most: Mapping[str, float]) -> str:
    """What to do about faults above their thresholds, with three examples of the worst of them."""
    bad = {name: fault for name, fault in found["faults"].items() if name in most and fault["share"] > most[name]}
    worst = max(bad.values(), key=lambda fault: float(fault["share"]))
    shown = "; ".join(f"{one['prompt'][:80]!r} -> {one['answer'][:80]!r}" for one in worst["shown"])
    return f"filter them out with `where`, or raise data.quality.{', data.quality.'.join(bad)}; such as: {shown}"


def _fault(of: int, bad: list[Answer]) -> dict[str, Any]:
    return {"count": len(bad), "of": of, "shown": [answer.show() for answer in bad[:SHOWN]]}


def _answer_faults(answers: list[Answer]) -> dict[str, dict[str, Any]]:
    tests = {
        "bare_numbers": lambda answer: faults.is_bare_number(answer.text),
        "empty": lambda answer: not answer.text.strip(),
        "truncated": lambda answer: faults.is_truncated(answer.text),
        "loops": lambda answer: faults.is_loop(answer.text),
        "copied": lambda answer: faults.is_copied(answer.prompt, answer.text),
    }
    return {name: _fault(len(answers), list(filter(test, answers))) for name, test in tests.items()}


def _line_faults(answers: list[Answer], languages: list[str | None]) -> dict[str, dict[str, Any]]:
    """Faults that an answer has only beside the others."""
    of = len(answers)
    said = [normalized(answer.text) for answer in answers]
    times = Counter(said)
    often = max(SHARED_LEAST, SHARED * of)
    repeated = [answer for answer, words in zip(answers, said, strict=True) if times[words] >= often]
    repeated.sort(key=lambda answer: -times[normalized(answer.text)])
    seen: dict[str, Answer] = {}
    for answer in repeated:  # different ones are shown
        seen.setdefault(normalized(answer.text), answer)
    rest = [answer for answer in repeated if seen[normalized(answer.text)] is not answer]
    known = Counter(name for name in languages if name)
    rare = {name for name in known if known.total() >= LEAST_KNOWN and known[name] < RARE * known.total()}
    foreign = [answer for answer, name in zip(answers, languages, strict=True) if name in rare]
    return {
        "repeated": _fault(of, [*seen.values(), *rest]),
        "odd_language": _fault(of, foreign),
        "odd_length": _fault(of, _odd_lengths(answers)),
    }


def _odd_lengths(answers: list[Answer]) -> list[Answer]:
    """Those far from the median, by the logarithm of their length; robust, so that they do not hide themselves."""
    if not answers:
        return []
    logs = [math.log(1 + len(answer.text)) for answer in answers]
    middle = statistics.median(logs)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in logs)
    far = FAR * max(spread, LEAST_DEVIATION)
    return [answer for answer, value in zip(answers, logs, strict=True) if abs(value - middle) > far]


def _example_faults(mix: Mix, examples: list[Example], answers: list[Answer]) -> dict[str, dict[str, Any]]:
    first = {answer.example: answer for answer in reversed(answers)}

    def shown(numbers: Iterable[int], of: int) -> dict[str, Any]:
        return _fault(of, [first.get(number, Answer(number, "", "")) for number in numbers])

    chats = [number for number, example in enumerate(examples) if "messages" in example]
    wrong = [n for n in chats if faults.is_out_of_order([turn["role"] for turn in examples[n]["messages"]])]
    trained = set(map(faults.asked, mix.train)) - {""}
    judged = range(len(mix.train), len(examples))
    both = [number for number in judged if faults.asked(examples[number]) in trained]
    leaking = (number for number, example in enumerate(examples) if faults.leaks(example))
    return {
        "role_order": shown(wrong, len(chats)),
        "leaked_templates": shown(leaking, len(examples)),
        "overlap": shown(both, len(judged)),
    }


def _broken(mix: Mix) -> dict[str, Any]:
    rejected = [row for report in mix.reports for row in report.rejected]
    shown = [
        {"example": f"{row['file']} line {row['line']}", "prompt": row["reason"], "answer": row["row"][:CHARACTERS]}
        for row in rejected[:SHOWN]
    ]
    # A source that failed as a whole is told apart, and is not a share of anything.
    used = [report for report in mix.reports if report.error is None]
    return {"count": sum(one.broken for one in used), "of": sum(one.read for one in used), "shown": shown}


def _size(example: Example) -> int:
    if "text" in example:
        return len(example["text"])
    return sum(len(str(turn["content"])) for turn in example["messages"])


def _lengths(values: Iterable[int], unit: str = "characters", cap: int | None = None) -> dict[str, Any]:
    """Median, 95th percentile, most, and a histogram: (upper end of a bar, how many are in it)."""
    lengths = sorted(values)
    if not lengths:
        return {"unit": unit, "cap": cap, "median": 0, "p95": 0, "max": 0, "histogram": []}
    last = len(lengths) - 1
    width = max(1, math.ceil((lengths[-1] + 1) / BARS))
    bars = Counter(length // width for length in lengths)
    return {
        "unit": unit,
        "cap": cap,
        "median": lengths[last // 2],
        "p95": lengths[math.ceil(0.95 * last)],
        "max": lengths[-1],
        "histogram": [[(bar + 1) * width, bars[bar]] for bar in range(lengths[-1] // width + 1)],
    }
