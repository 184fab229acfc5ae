"""Rewards for what is new."""

from dataclasses import replace

import pytest
import torch

from tests.workers.swarm.test_learners import episode, new
from workers.swarm.curiosity import SEEN, Curiosity, mean_and_deviation, moments, update
from workers.swarm.learners.policy_gradient import PolicyGradient
from workers.swarm.learning import Episode
from workers.swarm.policies import Policies

CURIOSITY = Curiosity(weight=2.0)


def curious(seeds: list[int], num_inputs: int = 3) -> Policies:
    return new(PolicyGradient(), seeds, num_inputs, hidden=(8,), curiosity=CURIOSITY)


@pytest.mark.parametrize("num_inputs", [1, 3])
def test_what_was_seen_often_gets_less_and_what_is_new_does_not(num_inputs):
    policies = curious(list(range(5)), num_inputs)
    old, new_ = (torch.full((5, 1, num_inputs), value) for value in (1.0, -1.0))

    def seen(number: int) -> Episode:
        one = episode(list(range(5)), number, 10, num_inputs)
        # 3 is their deviation; all come to lie about 1
        return replace(one, observations=one.observations / 6 + 1, last=one.last / 6 + 1)

    CURIOSITY.rewarded(policies, seen(0))
    before = [CURIOSITY.errors(policies, one) for one in (old, new_)]
    for number in range(1, 300):
        CURIOSITY.rewarded(policies, seen(number))
    after = [CURIOSITY.errors(policies, one) for one in (old, new_)]
    assert (after[0] / before[0]).max() < 0.02
    # less as well, as a network says something of what it never saw; but it stands out more than before
    assert (after[1] / after[0]).min() > 10
    assert ((after[1] / after[0]) / (before[1] / before[0])).min() > 3


def test_rewards_are_the_tasks_and_errors_over_the_deviation_of_their_returns():
    policies, one = curious([1, 2]), episode([1, 2], 0, 5, 3)
    found, mean = CURIOSITY.rewarded(policies, one)
    added = found.rewards - one.rewards
    assert torch.equal(found.actions, one.actions) and (added > 0).all()
    assert torch.allclose(added.transpose(0, 1).flatten(1).mean(-1), mean, rtol=1e-3)
    # of the first episode alone: its own deviation
    sums = torch.zeros_like(added)
    for t in range(len(added)):
        sums[t] = sum(0.99 ** (k - t) * added[k] for k in range(t, len(added)))
    assert torch.allclose(sums.transpose(0, 1).flatten(1).std(-1, unbiased=False), torch.full((2,), 2.0), rtol=1e-3)


def test_running_moments_are_those_of_all_samples_together():
    parts = [torch.randn(2, size, 3, dtype=torch.float64) * 5 + 100 for size in (1, 7, 30)]
    memory = moments("own", 2, 3, "cpu")
    for part in parts:
        update(memory, "own", part)
    joined = torch.cat(parts, 1)
    mean, deviation = mean_and_deviation(memory, "own")
    assert torch.allclose(mean, joined.mean(1), rtol=1e-12)
    assert torch.allclose(deviation, joined.std(1, unbiased=False), rtol=1e-10)
    assert memory["own.number"].tolist() == [[38.0]] * 2


def test_what_never_changes_is_taken_less_its_mean_alone():
    memory = moments("own", 1, 1, "cpu")
    update(memory, "own", torch.full((1, 4, 1), 3.0))
    assert [one.item() for one in mean_and_deviation(memory, "own")] == [3.0, 1.0]


def test_curiosity_is_bit_for_bit_alike_whoever_else_is_in_the_batch():
    def after(seeds: list[int]) -> tuple[Policies, torch.Tensor]:
        policies = curious(seeds)
        for number in range(20):
            found, _ = CURIOSITY.rewarded(policies, episode(seeds, number, 5, 3))
        return policies, found.rewards

    seeds = list(range(40, 104))
    batch, rewards = after(seeds)
    for first, last in ((0, 1), (30, 32), (5, 8), (20, 27)):
        alone, own = after(seeds[first:last])
        assert torch.equal(own, rewards[:, first:last])
        for policy in range(first, last):
            kept, other = batch.tensors(policy), alone.tensors(policy - first)
            assert [key for key in kept if not torch.equal(kept[key], other[key])] == []


def test_without_a_weight_nothing_is_kept():
    policies = new(PolicyGradient(), [1], curiosity=Curiosity())
    assert not policies.extra and not policies.memory
    assert f"{SEEN}.mean" in curious([1]).tensors(0)
