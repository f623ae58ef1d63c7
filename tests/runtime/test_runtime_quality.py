"""What is wrong with examples is found, counted and shown, and good examples are left in peace."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from runtime_tiny import Events, parameters, read_result, write_jsonl

from kchain.runtime import quality, session
from kchain.runtime.data import Mix, Report
from kchain.runtime.failure import Stop
from kchain.runtime.quality import language

SENTENCE = "The river winds through the valley, and on its banks the old mill still turns in the wind."
PROSE = f"{SENTENCE} It has done so for two hundred years. Nobody remembers who built it. {SENTENCE}"


def chat(prompt: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}


def mix(*examples: dict[str, Any], validation: tuple[dict[str, Any], ...] = ()) -> Mix:
    return Mix(list(examples), list(validation), [Report("s", read=len(examples), kept=len(examples))])


def words(count: int, seed: int = 0) -> str:
    chance = random.Random(seed)
    return " ".join("".join(chance.choices("abcdefghij", k=5)) for _ in range(count))


def count(found: dict[str, Any], name: str) -> int:
    return int(found["faults"][name]["count"])


@pytest.mark.parametrize("answer", ["0", "1", " 42 ", "-3.5", "1,000", "99 %", "12."])
def test_a_number_alone_is_a_bare_number(answer: str) -> None:
    assert quality.is_bare_number(answer)


@pytest.mark.parametrize("answer", ["", "ls", "0 files", "v1.2", "1 + 1", "10.0.0.1/24", "3rd", "---"])
def test_an_answer_with_more_than_a_number_is_none(answer: str) -> None:
    assert not quality.is_bare_number(answer)


@pytest.mark.parametrize(
    "answer", ["```python\nprint(1)", f"{PROSE} And then the mil", f"{PROSE} The miller said, and so,"]
)
def test_an_answer_that_ends_in_the_middle_is_found(answer: str) -> None:
    if not answer.startswith("```"):
        answer = answer.replace(" And then", " And then, when all of the village had gone to sleep,")
        answer = answer.replace(" The miller", " When it was dark and everybody had gone the miller")
    assert quality.is_truncated(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "ls -la",
        PROSE,
        f"{PROSE}\n- apples\n- pears",
        "```python\nprint(1)\n```",
        f"{PROSE}\n```\nx = 1\n```",
        words(90),
    ],
)
def test_commands_lists_code_and_whole_sentences_are_not_cut(answer: str) -> None:
    assert not quality.is_truncated(answer)


@pytest.mark.parametrize("answer", ["user" * 20, PROSE + " and so on" * 8, "I am sorry. " * 40, "ha " * 30])
def test_a_loop_is_found(answer: str) -> None:
    assert quality.is_loop(answer)


@pytest.mark.parametrize("answer", ["ls", PROSE, "-" * 80, "row, row, row your boat", words(400), "1 2 3\n" * 5])
def test_rules_refrains_and_ordinary_text_are_no_loop(answer: str) -> None:
    assert not quality.is_loop(answer)


def test_an_answer_that_repeats_its_prompt_is_copied_and_a_quotation_is_not() -> None:
    prompt = "Write a short poem about the sea and the wind."
    assert quality.is_copied(prompt, prompt.upper())
    assert quality.is_copied(prompt, f"{prompt} Write a short poem")
    assert quality.is_copied(prompt, "a short poem about the sea and the wind.")
    assert not quality.is_copied(f"{prompt} {PROSE}", SENTENCE)
    assert not quality.is_copied("echo hi", "echo hi")


@pytest.mark.parametrize(
    ("roles", "wrong"),
    [
        ("user assistant", False),
        ("system user assistant user assistant", False),
        ("user assistant tool assistant", False),
        ("assistant user assistant", True),
        ("user user assistant", True),
        ("user assistant user", True),
        ("user system assistant", True),
    ],
)
def test_turns_out_of_order_are_found(roles: str, wrong: bool) -> None:
    assert quality.is_out_of_order(roles.split()) is wrong


@pytest.mark.parametrize(
    "told", ["a<|im_end|>", "[INST] x", "### Response: x", "x\n### Instruction:\n", "<start_of_turn>"]
)
def test_marks_of_a_template_are_found(told: str) -> None:
    assert quality.leaks(chat("a", told)) and quality.leaks(chat(told, "a")) and quality.leaks({"text": told})


def test_a_heading_and_a_list_in_brackets_are_no_leak() -> None:
    assert not quality.leaks(chat("### Results", "Response: [INSTALL] a | b, x <= y > z"))


@pytest.mark.parametrize(
    ("told", "name"),
    [
        (PROSE, "English"),
        ("Der Hund und die Katze sind nicht im Haus, sie sitzen auf dem Dach.", "German"),
        ("Le chat et le chien ne sont pas dans la maison, ils sont sur le toit avec des amis.", "French"),
        ("Собака и кошка сидят на крыше дома.", "Cyrillic"),
        ("犬と猫は屋根の上に座っています。", "Japanese"),
        ("狗和猫坐在屋顶上看着月亮和星星。", "Chinese"),
        ("ls -la | wc -l", None),
        ("def f(x): return x", None),
        ("", None),
    ],
)
def test_a_language_is_told_where_there_is_enough_of_it(told: str, name: str | None) -> None:
    assert language(told) == name


def test_596_bare_digits_in_10_000_answers_are_counted_shown_and_fail_the_defaults() -> None:
    from kchain.phases import Quality

    examples = [chat(f"ask {n}", "01"[n % 2] if n < 596 else words(20, n)) for n in range(10_000)]
    found = quality.examine(mix(*examples))
    assert count(found, "bare_numbers") == 596
    shown = found["faults"]["bare_numbers"]["shown"]
    assert len(shown) == 3 and shown[0] == {"example": 0, "prompt": "ask 0", "answer": "0"}
    (problem,) = quality.problems(found, Quality().model_dump())
    assert "596 of 10,000 answers are only a number (5.96%" in problem
    assert quality.problems(found, {"bare_numbers": 0.06}) == []


def test_good_examples_have_no_fault() -> None:
    examples = [chat(f"Tell me about {words(3, n)}.", f"{words(n % 30 + 5, n)}.") for n in range(200)]
    found = quality.examine(mix(*examples[20:], validation=tuple(examples[:20])))
    assert {name: fault["count"] for name, fault in found["faults"].items() if fault["count"]} == {}
    assert (found["train"], found["validation"]) == (180, 20)


def test_an_answer_that_many_share_counts_each_time_and_different_ones_are_shown() -> None:
    examples = [chat(f"a {n}", "I cannot help with that." if n % 2 else "Sorry.") for n in range(30)]
    found = quality.examine(mix(*examples, *[chat(f"b {n}", words(9, n)) for n in range(50)]))
    assert count(found, "repeated") == 30
    assert {one["answer"] for one in found["faults"]["repeated"]["shown"][:2]} == {"I cannot help with that.", "Sorry."}


def test_a_few_answers_in_another_language_are_out_of_line_and_half_of_them_are_not() -> None:
    french = "Le chat et le chien ne sont pas dans la maison, ils sont sur le toit avec des amis."
    few = [chat(f"{n}", f"{n} {french if n < 3 else PROSE}") for n in range(60)]
    half = [chat(f"{n}", f"{n} {french if n % 2 else PROSE}") for n in range(60)]
    assert count(quality.examine(mix(*few)), "odd_language") == 3
    assert count(quality.examine(mix(*half)), "odd_language") == 0


def test_an_answer_a_hundred_times_as_long_as_the_others_is_out_of_line() -> None:
    examples = [chat(f"{n}", words(10 + n % 9, n)) for n in range(100)]
    found = quality.examine(mix(*examples, chat("x", words(4000, 7))))
    assert count(found, "odd_length") == 1
    assert found["answers"]["max"] > 10_000
    assert sum(bar for _, bar in found["answers"]["histogram"]) == 101


def test_a_prompt_on_both_sides_of_the_split_is_found() -> None:
    both = (chat("List FILES", "ls -1"), chat("other", "x"))
    found = quality.examine(mix(chat("list files", "ls"), chat("count", "wc"), validation=both))
    assert (count(found, "overlap"), found["faults"]["overlap"]["of"]) == (1, 2)


def test_lengths_are_in_tokens_where_they_are_known() -> None:
    found = quality.examine(mix(chat("a", "b"), chat("c", "d")), quality.Tokens([5, 8], cap=8, too_long=1))
    assert (found["lengths"]["unit"], found["lengths"]["cap"], count(found, "too_long")) == ("tokens", 8, 1)
    assert "too_long" not in quality.examine(mix(chat("a", "b")))["faults"]


def test_nothing_at_all_is_examined_without_a_traceback() -> None:
    assert quality.problems(quality.examine(mix()), dict.fromkeys(quality.WORDS, 0.0)) == []


def test_a_notebook_stops_before_training_with_counts_and_examples(kaggle: Path, events: Events) -> None:
    rows = [{"ask": f"is {n} even?", "answer": str(n % 2)} for n in range(40)]
    write_jsonl(kaggle / "temp" / "project" / "train.jsonl", rows)
    run = session.start(parameters(data__quality={"bare_numbers": 0.02}, data__max_examples=40), "b" * 64)
    run.install()
    run.preflight()
    run.merge()
    run.load_data()
    with pytest.raises(Stop, match="40 of 40 answers are only a number"):
        run.check_data()
    result = read_result(kaggle)
    assert result["status"] == "failed" and result["reason"].startswith("quality: 40 of 40")
    assert result["quality"]["faults"]["bare_numbers"]["count"] == 40
    told = {event["event"]: event for event in events()}
    assert told["quality"]["lengths"]["unit"] == "tokens"
    assert told["failed"]["cure"].count("even?") == 3 and "data.quality.bare_numbers" in told["failed"]["cure"]
    assert not (kaggle / "working" / "adapter").exists()
