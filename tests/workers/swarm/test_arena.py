"""Learning swarms: what is seen, got and learned, and that no policy depends on who else is in the batch."""

import math
from dataclasses import replace

import pytest
import torch

from workers.swarm.arena import Arena
from workers.swarm.engine import State
from workers.swarm.learners.policy_gradient import PolicyGradient
from workers.swarm.learning import returns, standardised
from workers.swarm.networks import Architecture
from workers.swarm.observables.concentration_field import ConcentrationField
from workers.swarm.physics import Physics, Robots, Timing
from workers.swarm.policies import new_policies
from workers.swarm.tasks.gradient_sensing import GradientSensing
from workers.swarm.world import World, arena_of
from workers.workloads.swarm_train import SwarmTrain

ROBOTS = Robots(radius=2.5, speed_body_lengths=5.0, turn_rate=600.0)
WORLD = SwarmTrain(robots=ROBOTS, timing=Timing(slice_seconds=0.1), physics=Physics(temperature_kelvin=300.0)).world()


def arena(seeds: list[int], **changed: object) -> Arena:
    worlds: list[World] = [replace(WORLD, seed=seed, **changed) for seed in seeds]  # type: ignore[arg-type]
    return arena_of(worlds, "cpu")


def test_one_policy_alone_is_the_same_in_a_batch_of_64():
    """For some episodes and the updates after them."""
    learner = PolicyGradient()
    runs = []
    for seeds in (list(range(64)), [40]):
        one = arena(seeds)
        policies = new_policies(learner, seeds, 1, 4, Architecture())
        for _ in range(3):
            learner.learn(policies, one.action, one.episode(policies.acting, 20, exploration=0.2))
        runs.append((one, policies))
    (batch, of_batch), (alone, own) = runs
    assert torch.allclose(batch.state.positions[:, 40], alone.state.positions[:, 0], atol=1e-4)
    for weights, single in zip(of_batch.actor.parameters(), own.actor.parameters()):
        assert torch.allclose(weights[40], single[0], atol=1e-4)


def test_what_is_seen_is_the_change_of_the_field_and_the_reward_where_it_rises():
    before, after = (State(torch.tensor([x, 0.0]).view(2, 1, 1, 1).expand(2, 1, 1, 2), torch.zeros(2, 1, 1, 2)) for x in (50.0, 40.0))
    task, sight = GradientSensing(), ConcentrationField()
    assert task.reward(None, before, after).flatten().tolist() == pytest.approx([10 * (1000 / 40 - 1000 / 50)] * 2, rel=1e-5)
    assert sight.observe(None, after, before).flatten().tolist() == pytest.approx([-50.0] * 2, rel=1e-5)
    assert task.reward(None, after, before).max() == 0


def test_late_rewards_are_those_of_the_action_before():
    early, late = arena([3]), arena([3], late_rewards=True)
    policies = new_policies(PolicyGradient(), [3], 1, 4, Architecture())
    told = [one.episode(policies.acting, 8).rewards for one in (early, late)]
    assert torch.equal(told[1][1:], told[0][:-1])
    assert told[1][0].eq(0).all()
    again = [one.episode(policies.acting, 8).rewards for one in (early, late)]
    assert torch.equal(again[1][0], told[0][-1])
    assert told[0].max() > 0


def test_forces_and_torques_are_those_of_the_speeds():
    eta = WORLD.physics.eta()
    friction = ROBOTS.friction(eta)
    assert ROBOTS.force(eta) / friction.along == pytest.approx(25.0)
    assert ROBOTS.torque(eta) / friction.rotation == pytest.approx(math.radians(600.0))
    fixed = replace(ROBOTS, force_viscosity=2 * eta)
    assert fixed.force(eta) / friction.along == pytest.approx(50.0)


def test_returns_are_discounted_sums_of_what_follows():
    rewards = torch.rand(7, 3, dtype=torch.float64)
    expected = [sum(0.9 ** (k - t) * rewards[k] for k in range(t, 7)) for t in range(7)]
    assert torch.allclose(returns(rewards, 0.9), torch.stack(expected))
    own = standardised(rewards)
    assert torch.allclose(own.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(own.std(0, unbiased=False), torch.ones(3, dtype=torch.float64), atol=1e-6)
