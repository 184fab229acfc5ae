"""Learning swarms: what is seen, got and learned, and that no policy depends on who else is in the batch."""

import math

import pytest
import torch

from workers.swarm.arena import Arena, ConcentrationChange
from workers.swarm.engine import Body, Engine, State
from workers.swarm.friction import sphere
from workers.swarm.learning import returns, standardised
from workers.swarm.training import Learner, PolicyGradient


def arena(seeds: list[int]) -> Arena:
    friction, field = sphere(2.5, 8.9e-4), ConcentrationChange()
    body = Body(radius=2.5, friction=friction, temperature=300.0, contact_temperature=300.0)
    engine = Engine([body] * len(seeds), seeds, num_environments=1, num_agents=10, slice_seconds=0.1, num_substeps=10)
    forces, torques = [25.0 * friction.along] * len(seeds), [math.radians(600) * friction.rotation] * len(seeds)
    return Arena(engine, engine.start(100.0), field, field, forces_P=forces, torques_P=torques)


def test_one_policy_alone_is_the_same_in_a_batch_of_64():
    """For one episode and the update after it."""
    batch, alone = arena(list(range(64))), arena([40])
    learners = Learner.of(batch, range(64), PolicyGradient()), Learner.of(alone, [40], PolicyGradient())
    for one, learner in zip((batch, alone), learners):
        learner.learn(one.episode(learner.actor, 20, exploration=0.2))
    assert torch.allclose(batch.state.positions[:, 40], alone.state.positions[:, 0], atol=1e-4)
    for weights, own in zip(learners[0].actor.parameters(), learners[1].actor.parameters()):
        assert torch.allclose(weights[40], own[0], atol=1e-4)


def test_what_is_seen_is_the_change_of_the_field_and_the_reward_where_it_rises():
    before, after = (State(torch.tensor([x, 0.0]).view(2, 1, 1, 1).expand(2, 1, 1, 2), torch.zeros(2, 1, 1, 2)) for x in (50.0, 40.0))
    field = ConcentrationChange()
    assert field.reward(None, before, after).flatten().tolist() == pytest.approx([10 * (1000 / 40 - 1000 / 50)] * 2, rel=1e-5)
    assert field.observe(None, after, before).flatten().tolist() == pytest.approx([-50.0] * 2, rel=1e-5)
    assert field.reward(None, after, before).max() == 0


def test_returns_are_discounted_sums_of_what_follows():
    rewards = torch.rand(7, 3, dtype=torch.float64)
    expected = [sum(0.9 ** (k - t) * rewards[k] for k in range(t, 7)) for t in range(7)]
    assert torch.allclose(returns(rewards, 0.9), torch.stack(expected))
    own = standardised(rewards)
    assert torch.allclose(own.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(own.std(0, unbiased=False), torch.ones(3, dtype=torch.float64), atol=1e-6)
