"""Answers drawn in batches: the same as one by one, each to its own end, and never beyond the time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runtime_tiny import EOS_ID

from kchain.runtime import samples
from kchain.runtime.encode import IGNORED, Encoded
from kchain.runtime.model import load_base
from kchain.runtime.samples import Drawing, Question

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12, 13, 14, 15], [3], [20, 21, 22, 23]]
HOW = Drawing(ends=[EOS_ID], tokens=6, batch=4, deadline=float("inf"))
TERSE, VERBOSE = 500, 501


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    return load_base(base, "fp32", "none")


def example(*parts: tuple[int, bool]) -> Encoded:
    """An example of parts of so many tokens, learned or not; the last token ends an answer."""
    learned = np.concatenate([np.full(length, flag) for length, flag in parts])
    ids = np.arange(1, len(learned) + 1, dtype=np.int32)
    ids[-1] = EOS_ID
    return Encoded(ids, np.where(learned, ids, IGNORED).astype(np.int32))


def test_a_batch_of_different_lengths_gets_the_answers_that_each_prompt_gets_alone(model: Any) -> None:
    together = samples.answers(model, PROMPTS, HOW)
    alone = [samples.answers(model, [prompt], HOW)[0] for prompt in PROMPTS]
    assert together == alone
    ids = torch.tensor([PROMPTS[1]])
    for _ in range(HOW.tokens):  # as arithmetic alone has it
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    assert together[1].ids == ids[0, len(PROMPTS[1]) :].tolist()


def test_an_answer_ends_at_its_first_end_and_that_is_counted(model: Any) -> None:
    (free,) = samples.answers(model, PROMPTS[:1], HOW)
    assert (len(free.ids), free.ended) == (6, False)
    (ended,) = samples.answers(model, PROMPTS[:1], replace(HOW, ends=[EOS_ID, free.ids[0]]))
    assert (ended.ids, ended.ended) == (free.ids[:1], True)


def test_what_a_base_says_about_sampling_does_not_leak_into_greedy_answers(model: Any) -> None:
    plain = samples.answers(model, PROMPTS, HOW)
    model.generation_config.update(repetition_penalty=50.0, temperature=9.0, do_sample=True, eos_token_id=[7, EOS_ID])
    assert samples.answers(model, PROMPTS, HOW) == plain


def test_memory_that_runs_out_halves_the_batch_until_one_is_too_many(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, stock, most = samples.answers(model, PROMPTS, HOW), model.generate, 2

    def little_memory(**options: Any) -> Any:
        if len(options["input_ids"]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return stock(**options)

    monkeypatch.setattr(model, "generate", little_memory)
    assert samples.answers(model, PROMPTS, HOW) == plain
    most = 0
    with pytest.raises(torch.OutOfMemoryError):
        samples.answers(model, PROMPTS, HOW)


def test_no_answer_is_begun_without_time_and_none_is_kept_that_time_cut(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(samples.Late):
        samples.answers(model, PROMPTS, replace(HOW, deadline=0.0))
    monkeypatch.setattr("kchain.runtime.samples.time.monotonic", lambda: 0.0)
    with pytest.raises(samples.Late):  # the time that is left is gone after the first token
        samples.answers(model, PROMPTS, replace(HOW, deadline=1e-9))


def test_a_question_is_the_last_answer_and_everything_before_it() -> None:
    (asked,) = samples.questions([example((3, False), (2, True), (4, False), (3, True))], [EOS_ID], 8)
    assert asked == Question([1, 2, 3, 4, 5, 6, 7, 8, 9], [10, 11, EOS_ID])


def test_of_text_that_is_all_learned_the_second_half_is_asked_for() -> None:
    (asked,) = samples.questions([example((7, True))], [EOS_ID], 8)
    assert asked == Question([1, 2, 3], [4, 5, 6, EOS_ID])


def test_answers_that_had_room_to_end_are_asked_for_first() -> None:
    long, cut, short = example((2, False), (6, True)), example((2, False), (2, True)), example((2, False), (4, True))
    cut.ids[-1] = 9  # the example was cut: nobody knows where its answer ends
    lengths = [len(one.expected) for one in samples.questions([long, cut, short], [EOS_ID], 8)]
    assert lengths == [4, 6, 2]


def test_styles_take_turns_and_are_swapped_in_every_turn_of_a_prompt() -> None:
    asked = [Question([TERSE, n], [EOS_ID]) for n in (1, 2, 3)] + [Question([VERBOSE, 4], [EOS_ID]), Question([5], [6])]
    assert [one.prompt for one in samples.styled(asked, [TERSE, VERBOSE])] == [
        [TERSE, 1],
        [VERBOSE, 4],
        [TERSE, 2],
        [TERSE, 3],
    ]
    assert samples.in_style([TERSE, 1, 2, TERSE, 3], [TERSE, VERBOSE], VERBOSE) == [VERBOSE, 1, 2, VERBOSE, 3]
