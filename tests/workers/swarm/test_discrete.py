"""A few actions, of which one is chosen."""

import pytest
import torch

from workers.errors import ConfigError
from workers.swarm import noise
from workers.swarm.actions.discrete import Discrete


def explored(action: Discrete, step: int, probability: float = 0.5) -> torch.Tensor:
    keys = noise.particle_keys(torch.tensor([1, 2, 3]), 4, 50, noise.EXPLORATION)
    return action.explore(torch.full((3, 4, 50), -1), keys, step, probability)


def test_agents_explore_with_the_probability_and_every_action_is_as_likely():
    found = torch.stack([explored(Discrete(), step, 0.3) for step in range(50)]).flatten()
    shares = torch.bincount(found + 1, minlength=5) / len(found)
    assert shares.tolist() == pytest.approx([0.7, 0.075, 0.075, 0.075, 0.075], abs=0.01)


def test_who_explores_shares_an_action_with_those_of_the_same_environment_and_slice_alone():
    own, shared = (torch.stack([explored(Discrete(exploration=kind), step) for step in range(50)]) for kind in ("own", "shared"))
    assert torch.equal(own == -1, shared == -1)
    actions = {
        (step, policy, environment): set(shared[step, policy, environment].tolist()) - {-1}
        for step in range(50)
        for policy in range(3)
        for environment in range(4)
    }
    assert {len(one) for one in actions.values()} == {1}
    drawn = torch.tensor([one.pop() for one in actions.values()])
    assert (torch.bincount(drawn, minlength=4) / len(drawn)).tolist() == pytest.approx([0.25] * 4, abs=0.06)


def test_exploration_is_of_a_known_kind():
    with pytest.raises(ConfigError, match="exploration must be one of own, shared, got 'all'"):
        Discrete(exploration="all")
