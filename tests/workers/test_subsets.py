"""Subsets, orders and the steps at which to look."""

import math

import numpy as np
import pytest

from workers.optimizers.adam import Adam
from workers.optimizers.sgd import Sgd
from workers.schedule import log_spaced_steps
from workers.subsets import num_seen, permutation, probe, subset


def test_a_smaller_subset_is_the_beginning_of_a_larger_one():
    assert np.array_equal(subset(1000, 50, seed=3), subset(1000, 400, seed=3)[:50])
    assert not np.array_equal(subset(1000, 50, seed=3), subset(1000, 50, seed=4))


def test_a_permutation_holds_every_index_once_and_each_epoch_has_its_own():
    assert sorted(permutation(100, 7, 2).tolist()) == list(range(100))
    assert not np.array_equal(permutation(100, 7, 2), permutation(100, 7, 3))


def test_permutations_are_pinned():
    assert permutation(8, 12345, 1).tolist() == [5, 3, 6, 2, 0, 7, 4, 1]


def test_a_smaller_probe_set_is_the_beginning_of_a_larger_one():
    assert np.array_equal(probe(1000, 16), probe(1000, 64)[:16])


def test_number_of_samples_seen_is_that_of_the_batches():
    num, batch, steps, seed = 10, 3, 5, 1
    seen = {int(i) for step in range(steps) for i in permutation(num, seed, step // 3)[step % 3 * batch : step % 3 * batch + batch]}
    assert num_seen(num, batch, steps, seed) == len(seen)


@pytest.mark.parametrize(("num_steps", "count"), [(1, 2), (1, 9), (100, 2), (100, 3), (100, 8), (5, 50)])
def test_log_spaced_steps_hold_both_ends_and_no_more_than_asked(num_steps, count):
    steps = log_spaced_steps(num_steps, count)
    assert (steps[0], steps[-1]) == (0, num_steps)
    assert len(steps) <= count
    assert list(steps) == sorted(set(steps))


def test_log_spaced_steps_grow_in_equal_ratios():
    assert log_spaced_steps(1000, 5) == (0, 1, 10, 100, 1000)


def test_cosine_schedule_warms_up_and_falls_to_zero():
    sgd = Sgd(learning_rate=0.4, schedule="cosine", warmup_steps=4)
    assert [sgd.rate(step, 104) for step in (0, 1, 3, 4)] == pytest.approx([0.1, 0.2, 0.4, 0.4])
    assert sgd.rate(54, 104) == pytest.approx(0.2)
    assert sgd.rate(103, 104) == pytest.approx(0.4 * 0.5 * (1 + math.cos(math.pi * 0.99)))


def test_linear_and_constant_schedules():
    assert Adam(learning_rate=1.0, schedule="linear").rate(25, 100) == pytest.approx(0.75)
    assert Adam(learning_rate=1.0).rate(99, 100) == 1.0
