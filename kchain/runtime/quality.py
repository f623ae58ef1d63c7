"""How good the examples are before anything is trained on them: faults counted and shown, lengths, languages.

A fault is a pure function of an example's text. A language is told by a few letters and the smallest words, which is
enough to see which answers are out of line.
"""

from __future__ import annotations

import math
import re
import statistics
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .data import Mix
from .examples import Example, text
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
    "bare_numbers": "answers are only a number",
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
    "overlap": "validation examples have a prompt that is also trained on",
    "broken": "rows could not be used",
}
# Marks of chat templates and prompt formats that belong to the template, never into the text itself.
LEAKED = re.compile(
    r"<\|(?:im_start|im_end|endoftext|eot_id|start_header_id|end_header_id|system|user|assistant|end)\|>"
    r"|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>"
    r"|^\s*###\s*(?:Instruction|Response|Input|Human|Assistant|User)\s*:",
    re.MULTILINE,
)
_NUMBER = re.compile(r"[-+]?[\d., \u00a0\u202f]*\d[\d.,]*\s*%?")
_SENTENCE = re.compile(r"[.!?…。！？][\"'”’)\]]*\s")
LONG = 200  # characters from which an answer is judged as prose
SAME = 5  # times in a row that something is said, to be a loop ...
PERIOD = 60  # ... of at most so many characters
LOOP = 20  # characters that a loop has at least
SQUEEZED = 0.08  # of its size is left of a text that says one thing over and over, when zlib has packed it
QUOTED = 0.8  # share of the prompt that an answer must hold to be copied from it
LEAST_COPY = 20  # characters of a prompt that can be copied
LOOKED_AT = 1000  # characters of a text that tell its language
LEAST_LETTERS = 10
LEAST_WORDS = 3  # different small words of a language
SCRIPTS = {
    name: re.compile(f"[{letters}]")
    for name, letters in {
        "Latin": "A-Za-z\u00c0-\u024f",
        "Greek": "\u0370-\u03ff",
        "Cyrillic": "\u0400-\u052f",
        "Hebrew": "\u0590-\u05ff",
        "Arabic": "\u0600-\u06ff",
        "Devanagari": "\u0900-\u097f",
        "Thai": "\u0e00-\u0e7f",
        "Korean": "\uac00-\ud7af",
        "Japanese": "\u3040-\u30ff",
        "Chinese": "\u4e00-\u9fff",
    }.items()
}
SMALL_WORDS = {
    "English": "the of and to in is that for with are this was be you have not from they it",
    "German": "der die das und ist nicht mit ein eine zu den von sich auch auf für dem wird werden sie",
    "French": "le la les des est et une dans que pour qui pas sur avec sont vous nous du ce au",
    "Spanish": "el los las es y una que para por con está como pero más son del se su lo al",
    "Italian": "il di che è una per non con sono della gli nel alla anche più come ma questo si del",
    "Portuguese": "o os as é e uma que para com não por mais como mas são do da em se ao",
    "Dutch": "de het een en van is niet met voor dat op zijn wordt ook maar aan bij door deze als",
}
_WORDS = {name: frozenset(words.split()) for name, words in SMALL_WORDS.items()}


@dataclass(frozen=True)
class Tokens:
    """Lengths of the examples in tokens, the most that are kept of one, and how many have more."""

    lengths: list[int]
    cap: int
    too_long: int


@dataclass(frozen=True)
class ExampleAnswer:
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
        ExampleAnswer(number, prompt, said)
        for number, example in enumerate(examples)
        for prompt, said in pairs(example)
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


def _fault(of: int, bad: list[ExampleAnswer]) -> dict[str, Any]:
    return {"count": len(bad), "of": of, "shown": [answer.show() for answer in bad[:SHOWN]]}


def _answer_faults(answers: list[ExampleAnswer]) -> dict[str, dict[str, Any]]:
    tests = {
        "bare_numbers": lambda answer: is_bare_number(answer.text),
        "empty": lambda answer: not answer.text.strip(),
        "truncated": lambda answer: is_truncated(answer.text),
        "loops": lambda answer: is_loop(answer.text),
        "copied": lambda answer: is_copied(answer.prompt, answer.text),
    }
    return {name: _fault(len(answers), list(filter(test, answers))) for name, test in tests.items()}


def _line_faults(answers: list[ExampleAnswer], languages: list[str | None]) -> dict[str, dict[str, Any]]:
    """Faults that an answer has only beside the others."""
    of = len(answers)
    said = [normalized(answer.text) for answer in answers]
    times = Counter(said)
    often = max(SHARED_LEAST, SHARED * of)
    repeated = [answer for answer, words in zip(answers, said, strict=True) if times[words] >= often]
    repeated.sort(key=lambda answer: -times[normalized(answer.text)])
    seen: dict[str, ExampleAnswer] = {}
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


def _odd_lengths(answers: list[ExampleAnswer]) -> list[ExampleAnswer]:
    """Those far from the median, by the logarithm of their length; robust, so that they do not hide themselves."""
    if not answers:
        return []
    logs = [math.log(1 + len(answer.text)) for answer in answers]
    middle = statistics.median(logs)
    spread = 1.4826 * statistics.median(abs(value - middle) for value in logs)
    far = FAR * max(spread, LEAST_DEVIATION)
    return [answer for answer, value in zip(answers, logs, strict=True) if abs(value - middle) > far]


def _example_faults(mix: Mix, examples: list[Example], answers: list[ExampleAnswer]) -> dict[str, dict[str, Any]]:
    first = {answer.example: answer for answer in reversed(answers)}

    def shown(numbers: Iterable[int], of: int) -> dict[str, Any]:
        return _fault(of, [first.get(number, ExampleAnswer(number, "", "")) for number in numbers])

    chats = [number for number, example in enumerate(examples) if "messages" in example]
    wrong = [n for n in chats if is_out_of_order([turn["role"] for turn in examples[n]["messages"]])]
    trained = set(map(asked, mix.train)) - {""}
    judged = range(len(mix.train), len(examples))
    both = [number for number in judged if asked(examples[number]) in trained]
    leaking = (number for number, example in enumerate(examples) if leaks(example))
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


def pairs(example: Example) -> list[tuple[str, str]]:
    """(what was said before, answer) of every answer of an example; a plain text answers nothing."""
    if "text" in example:
        return [("", text(example["text"]))]
    found, said = [], ""
    for turn in example["messages"]:
        if turn["role"] == "assistant":
            found.append((said, text(turn["content"])))
        elif turn["role"] != "system":
            said = text(turn["content"])
    return found


def asked(example: Example) -> str:
    """Everything that the user says in an example, normalized; empty for a plain text."""
    turns = example.get("messages", ())
    return normalized(" \0 ".join(text(turn["content"]) for turn in turns if turn["role"] == "user"))


def is_bare_number(answer: str) -> bool:
    """A number and nothing else: "0", "1.", "12 %"."""
    return len(answer) < 40 and _NUMBER.fullmatch(answer.strip()) is not None


def is_truncated(answer: str) -> bool:
    """It ends inside a code block, or in the middle of a sentence of prose that is otherwise made of sentences."""
    ended = answer.rstrip()
    if ended.count("```") % 2:
        return True
    if len(ended) < LONG or "```" in ended or len(_SENTENCE.findall(ended)) < 2:
        return False
    last = ended.rpartition("\n")[2]
    in_prose = len(last.split()) >= 8  # not a list's item, a heading, a name below a letter
    return in_prose and (ended[-1].isalnum() or ended[-1] in ",;(-–")


def is_loop(answer: str) -> bool:
    """It says the same over and over, at its end or all through."""
    told = " ".join(answer.split())
    if len(told) >= 20 * LOOP and len(zlib.compress(told.encode(), 1)) < SQUEEZED * len(told.encode()):
        return True
    for period in range(1, min(PERIOD, len(told) // SAME) + 1):
        times = max(SAME, -(-LOOP // period))
        end = told[-period:]
        if told.endswith(end * times) and any(character.isalpha() for character in end):
            return True
    return False


def is_copied(prompt: str, answer: str) -> bool:
    """It is the prompt again: all of it, or most of it and nothing else."""
    asked, told = normalized(prompt), normalized(answer)
    if len(asked) < LEAST_COPY:
        return False
    return told.startswith(asked) or (told in asked and len(told) > QUOTED * len(asked))


def leaks(example: Example) -> bool:
    """A mark of a chat template stands in its text."""
    if "text" in example:
        return LEAKED.search(text(example["text"])) is not None
    return any(LEAKED.search(text(turn["content"])) for turn in example["messages"])


def is_out_of_order(roles: Sequence[str]) -> bool:
    """Not: perhaps system, then user, assistant, user, assistant. Tools may answer the assistant."""
    turns = [role for role in roles if role != "tool"]
    spoken = turns[1:] if turns[:1] == ["system"] else turns
    wanted = ["user" if number % 2 == 0 else "assistant" for number in range(len(spoken))]
    # An answer may come twice around what a tool said.
    if "tool" in roles:
        return spoken[:1] != ["user"] or spoken[-1:] != ["assistant"] or "system" in spoken
    return spoken != wanted or len(spoken) % 2 == 1


def language(text: str) -> str | None:
    """The language of a text in Latin letters, the script of any other; None where there is too little to tell."""
    beginning = text[:LOOKED_AT]
    if beginning.isascii():
        return _latin(beginning)
    counts = {name: len(letters.findall(beginning)) for name, letters in SCRIPTS.items()}
    if counts["Japanese"]:
        counts["Japanese"] += counts.pop("Chinese")  # Japanese uses both
    best = max(counts, key=lambda name: counts[name])
    if counts[best] < LEAST_LETTERS:
        return None
    return _latin(beginning) if best == "Latin" else best


def _latin(text: str) -> str | None:
    words = set(re.findall(r"[^\W\d_]+", text.lower()))
    hits = sorted(((len(words & small), name) for name, small in _WORDS.items()), reverse=True)
    (most, name), (second, _) = hits[:2]
    return name if most >= LEAST_WORDS and most > second else None
