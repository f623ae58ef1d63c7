"""Which examples make a step: the same ones, whatever the batch and the number of processes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kchain.runtime.batches import Order, Share, smaller

LENGTHS = [int(length) for length in np.random.default_rng(3).lognormal(4.8, 0.9, 101)]


def order(share: Share, packed: bool = True, lengths: list[int] = LENGTHS, seed: int = 42) -> Order:
    return Order(lengths, seed, share, packed)


def real(batch: list[int]) -> list[int]:
    return [index for index in batch if index < len(LENGTHS)]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("share", [Share(16, 2), Share(16, 1), Share(16, 16), Share(16, 2, 2), Share(16, 4, 4)])
def test_every_step_has_the_same_examples_however_it_is_shared_out(share: Share, packed: bool) -> None:
    one, other = order(Share(16, 2)), order(share, packed)
    for step in range(3 * one.steps):
        batches = other.batches(step)
        assert len(batches) % share.processes == 0, "a process that has fewer batches leaves the others waiting"
        assert all(len(batch) <= share.batch for batch in batches)
        assert sorted(index for batch in batches for index in real(batch)) == sorted(one.examples(step))


@given(st.integers(1, 60), st.sampled_from([(8, 2, 1), (8, 2, 2), (12, 3, 2), (6, 6, 1), (16, 1, 4)]))
def test_an_epoch_has_every_example_once_and_every_process_takes_as_many_batches(
    count: int, shared: tuple[int, int, int]
) -> None:
    effective, batch, processes = shared
    ranks = [order(Share(effective, batch, processes, rank), lengths=LENGTHS[:count]) for rank in range(processes)]
    for each in ranks:
        each.epoch = 2
    taken = [list(each) for each in ranks]
    assert {len(batches) for batches in taken} == {len(ranks[0])}
    every = [index for batches in taken for batch in batches for index in batch if index < count]
    assert sorted(every) == list(range(count))


def test_a_process_without_examples_in_the_last_step_gets_one_with_nothing_to_learn() -> None:
    first, second = (order(Share(4, 2, 2, rank), lengths=LENGTHS[:5]) for rank in (0, 1))
    assert [len(batch) for batch in first] == [2, 1]
    assert list(second)[-1] == [5]


def test_epochs_are_shuffled_differently_and_the_same_seed_shuffles_the_same() -> None:
    one, again, other = order(Share(16, 2)), order(Share(16, 2)), order(Share(16, 2), seed=43)
    assert one.examples(0) != one.examples(one.steps)
    assert [one.examples(step) for step in range(14)] == [again.examples(step) for step in range(14)]
    assert one.examples(0) != other.examples(0)


def test_processes_have_nearly_the_same_number_of_tokens_in_a_step() -> None:
    dealt, as_they_come = [], []
    for step in range(order(Share(16, 2, 2)).steps - 1):
        both = order(Share(16, 2, 2))
        batches = both.batches(step)
        tokens = [sum(both.weight(batch) for batch in batches[rank::2]) for rank in (0, 1)]
        dealt.append(max(tokens) / sum(tokens) * 2)
        examples = both.examples(step)
        halves = [sum(LENGTHS[index] for index in half) for half in (examples[:8], examples[8:])]
        as_they_come.append(max(halves) / sum(halves) * 2)
    assert np.median(dealt) < 1.06
    assert np.median(as_they_come) > 1.1


def test_the_batch_that_is_tried_first_is_the_heaviest_of_the_run() -> None:
    for packed in (True, False):
        tried = order(Share(16, 4), packed)
        every = [tried.weight(batch) for step in range(2 * tried.steps) for batch in tried.batches(step)]
        assert tried.weight(tried.heaviest(2 * tried.steps)) == max(every)


def test_padded_batches_are_made_of_like_lengths() -> None:
    padded, packed = order(Share(16, 4), packed=False), order(Share(16, 4))
    wasted = sum(padded.weight(batch) for batch in padded.batches(0))
    assert wasted < sum(padded.weight(batch) for batch in packed.batches(0))


@pytest.mark.parametrize(
    ("share", "batch", "accumulation"),
    [
        (Share(16, 4), 2, 8),
        (Share(16, 2, 2), 1, 8),
        (Share(24, 3), 1, 24),
        (Share(40, 5, 2), 2, 10),
        (Share(56, 7), 2, 28),
        (Share(36, 6, 2), 3, 6),
    ],
)
def test_the_next_smaller_batch_keeps_the_examples_of_a_step(share: Share, batch: int, accumulation: int) -> None:
    found = smaller(share)
    assert found == Share(share.effective, batch, share.processes, share.rank)
    assert found.accumulation == accumulation
    assert found.batch * found.accumulation * found.processes == share.effective


def test_one_example_at_a_time_is_the_smallest_batch() -> None:
    assert smaller(Share(16, 1)) is None
