"""Continuous actions, against numbers of other ways to them."""

import math
from typing import Any

import pytest
import torch
from torch import distributions

from workers.errors import ConfigError
from workers.swarm import noise
from workers.swarm.actions.continuous import Continuous

BOTH = pytest.mark.parametrize("backward", [False, True])


def keys(policies: list[int], agents: int = 7) -> torch.Tensor:
    return noise.particle_keys(torch.tensor(policies), 3, agents, noise.CHOICES)


def outputs(num: int, mean: float = 0.3, log_deviation: float = -0.5) -> torch.Tensor:
    """Of means that differ, and alike deviations."""
    return torch.tensor([mean, -mean, log_deviation, log_deviation + 0.2], dtype=torch.float64).expand(num, 4)


def distribution(given: torch.Tensor, backward: bool) -> Any:
    """Of force and torque, by torch's own transformations."""
    tanh = distributions.TanhTransform(cache_size=1)
    halves = distributions.AffineTransform(torch.tensor([0.0 if backward else 0.5, 0.0]), torch.tensor([1.0 if backward else 0.5, 1.0]))
    return distributions.TransformedDistribution(distributions.Normal(given[..., :2], given[..., 2:].exp()), [tanh, halves])


def shares(action: Continuous, drawn: torch.Tensor) -> torch.Tensor:
    controls = action.controls(drawn)
    return torch.stack([controls.force, controls.torque], -1)


@BOTH
def test_probabilities_are_those_of_the_shares(backward: bool):
    action, given = Continuous(backward=backward), outputs(500)
    drawn = action.sample(given, torch.arange(500), 0)
    logs, _ = action.log_probability(given, drawn)
    assert torch.allclose(logs, distribution(given, backward).log_prob(shares(action, drawn)).sum(-1), rtol=1e-6)


@BOTH
@pytest.mark.parametrize("log_deviation", [-2.0, 0.0, 0.7])
def test_the_entropy_is_the_mean_of_minus_the_logarithm_of_the_probability(backward: bool, log_deviation: float):
    action, given = Continuous(backward=backward), outputs(100_000, log_deviation=log_deviation)
    logs, entropy = action.log_probability(given, action.sample(given, torch.arange(len(given)), 0))
    error = logs.std().item() / math.sqrt(len(logs))
    assert abs(entropy[0].item() + logs.mean().item()) < 4 * error
    assert error < 0.02


@BOTH
def test_shares_stay_within_their_bounds(backward: bool):
    action = Continuous(backward=backward)
    found = shares(action, action.sample(outputs(10_000, log_deviation=2.0), torch.arange(10_000), 0))
    low, high = found.amin(0).tolist(), found.amax(0).tolist()
    assert low == pytest.approx([-1 if backward else 0, -1], abs=1e-3)
    assert high == pytest.approx([1, 1], abs=1e-3)
    assert found.abs().max() <= 1


def test_samples_have_the_mean_and_the_deviation_that_the_actor_says():
    action, given = Continuous(), outputs(40_000)
    drawn = action.sample(given, torch.arange(40_000), 5)
    assert torch.allclose(drawn.mean(0), given[0, :2], atol=0.02)
    assert torch.allclose(drawn.std(0), given[0, 2:].exp(), rtol=0.02)


def test_probabilities_are_numbers_where_tanh_is_1():
    given = torch.tensor([[40.0, -40.0, 9.0, -90.0]], requires_grad=True)
    logs, entropy = Continuous().log_probability(given, torch.tensor([[40.0, -40.0]]))
    (logs + entropy).sum().backward()
    assert logs.isfinite().all() and entropy.isfinite().all() and given.grad.isfinite().all()


def test_gradients_of_the_probability_are_those_of_finite_differences():
    given, drawn = outputs(3).clone().requires_grad_(), torch.randn(3, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: Continuous().log_probability(x, drawn), given)


@BOTH
def test_exploring_agents_draw_any_shares(backward: bool):
    action, drawn = Continuous(backward=backward), torch.full((40_000, 2), 0.25, dtype=torch.float64)
    found = action.explore(drawn, torch.arange(40_000), 3, 0.25)
    new = (found != drawn).all(-1)
    assert new.double().mean().item() == pytest.approx(0.25, abs=0.01)
    low = torch.tensor([-1.0 if backward else 0.0, -1.0], dtype=torch.float64)
    uniform = (shares(action, found[new]) - low) / (1.0 - low)
    assert torch.allclose(uniform.sort(0).values, torch.linspace(0, 1, int(new.sum()), dtype=torch.float64)[:, None], atol=0.02)
    assert torch.equal(action.explore(drawn, torch.arange(40_000), 3, 0.0), drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exploring_gives_finite_numbers(dtype: torch.dtype):
    found = Continuous().explore(torch.zeros(1_000_000, 2, dtype=dtype), torch.arange(1_000_000), 0, 1.0)
    assert found.isfinite().all() and found.dtype == dtype


def test_bounds_of_deviations_are_in_their_order():
    with pytest.raises(ConfigError, match=r"must be below most_log_deviation, got 3.0 and 2.0"):
        Continuous(least_log_deviation=3.0)


@pytest.mark.parametrize("agents", [1, 7, 10])
def test_what_is_done_does_not_depend_on_who_else_is_in_the_batch(agents: int):
    action, kept = Continuous(), []
    for policies in ([4], [4, 9, 11], [2, 4, 7], [0, 1, 4], list(range(17))):
        rows = [torch.randn(3, agents, 4, generator=torch.Generator().manual_seed(policy)) for policy in policies]
        given, own = torch.stack(rows), keys(policies, agents)
        drawn = action.explore(action.sample(given, own, 7), own, 8, 0.5)
        controls = action.controls(drawn)
        found = [drawn, *action.log_probability(given, drawn), controls.force, controls.torque]
        kept.append([values[policies.index(4)] for values in found])
    for other in kept[1:]:
        assert all(torch.equal(alone, beside) for alone, beside in zip(kept[0], other))
