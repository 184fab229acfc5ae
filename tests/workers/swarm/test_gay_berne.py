"""Contacts of spheroids: forces and torques against the derivatives of the energy, limits, and how they move in the engine."""

import math

import pytest
import torch

from workers.errors import ConfigError
from workers.swarm import gay_berne
from workers.swarm.contacts import strength
from workers.swarm.engine import Body, Engine
from workers.swarm.flow import elongation
from workers.swarm.friction import semi_axes, sphere, spheroid

SIGMA, DEPTH = torch.tensor(1.3, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64)


def units(count: int, dimensions: int) -> torch.Tensor:
    drawn = torch.randn(dimensions, count, dtype=torch.float64)
    return drawn / drawn.norm(dim=0)


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("aspect", [3.0, 1 / 3, 1.2])
def test_forces_and_torques_are_derivatives_of_the_energy(aspect: float, dimensions: int):
    """Torques by the derivative along e x u: of a turn of the director; also where the potential goes on in a straight line."""
    torch.manual_seed(0)
    chi, count = elongation(aspect), 3000
    apart = units(count, dimensions) * (0.3 + torch.rand(count, dtype=torch.float64) * 4.0)
    first, second = units(count, dimensions), units(count, dimensions)
    leaves = [values.clone().requires_grad_() for values in (apart, first, second)]
    energy = gay_berne.energies(*leaves, SIGMA, DEPTH, chi)
    by_apart, by_first, by_second = torch.autograd.grad(energy.sum(), leaves)
    force, *torques = gay_berne.forces(apart, first, second, SIGMA, DEPTH, chi)
    assert (energy > 0).double().mean() > 0.1
    scale = force.abs().clamp(min=1.0)
    assert ((force + by_apart).abs() / scale).max() < 1e-9

    def cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.linalg.cross(a, b, dim=0) if dimensions == 3 else (a[0] * b[1] - a[1] * b[0])[None]

    for torque, director, derivative in zip(torques, (first, second), (by_first, by_second)):
        assert ((torque + cross(director, derivative)).abs() / torque.abs().clamp(min=1.0)).max() < 1e-9
    # no torque on the pair as a whole
    whole = cross(apart, force) + torques[0] + torques[1]
    assert (whole.abs() / force.norm(dim=0).clamp(min=1.0)).max() < 1e-9


def test_round_particles_repel_each_other_by_wca():
    apart = units(500, 3) * torch.linspace(0.8, 1.6, 500, dtype=torch.float64)
    force, first, second = gay_berne.forces(apart, units(500, 3), units(500, 3), SIGMA, DEPTH, 0.0)
    expected = apart * strength(apart.square().sum(0), SIGMA.square(), DEPTH)
    assert torch.allclose(force, expected, rtol=1e-9)
    assert first.abs().max() == second.abs().max() == 0.0


@pytest.mark.parametrize("aspect", [3.0, 1 / 3])
def test_spheroids_touch_side_by_side_and_end_to_end_at_their_axes(aspect: float):
    """Side by side at twice the width across, exactly; end to end at 0.891 of twice the other axis and 0.109 of the first."""
    across, along = semi_axes(1.0, aspect)
    sigma, one = torch.tensor([2 * across / 2 ** (1 / 6)], dtype=torch.float64), torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    aside = one.flip(0)
    side, end = (gay_berne.touching(one, facing, facing, sigma, elongation(aspect)).item() for facing in (aside, one))
    assert side == pytest.approx(2 * across)
    assert end == pytest.approx(2 * (along * 2 ** (-1 / 6) + across * (1 - 2 ** (-1 / 6))))


def engine(aspect: float = 3.0, kelvin: float = 0.0, environments: int = 1, **more) -> Engine:
    body = Body(radius=1.0, friction=spheroid(1.0, aspect, 8.9e-4), temperature=kelvin, contact_temperature=300.0, aspect=aspect)
    settings = dict(num_agents=2, slice_seconds=0.05, num_substeps=50, contact="gay_berne", dtype=torch.float64) | more
    return Engine([body], [3], num_environments=environments, **settings)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_needles_that_are_pushed_together_turn_side_by_side(dimensions: int):
    """Two that swim at each other, nearly head on, come to lie parallel, and their torques are those that the engine applies."""
    one = engine(num_dimensions=dimensions)
    positions, directors = torch.zeros(dimensions, 2), torch.zeros(dimensions, 2)
    positions[0], positions[1] = torch.tensor([-3.0, 3.0]), torch.tensor([0.0, 0.4])
    directors[0] = torch.tensor([1.0, -1.0])
    state = one.start_at(positions, directors)
    forces = 4.0 * one.along.expand(one.shape)
    for _ in range(40):
        one.advance(state, forces, 0 * forces)
    x, y = state.positions[:2, 0, 0]
    assert (x[1] - x[0]).item() < 0 and abs((y[1] - y[0]).item()) > 1.0
    # no torque on the pair: both have turned alike
    assert torch.allclose(state.directors[..., 0], -state.directors[..., 1], atol=1e-9)
    assert abs(state.directors[1, 0, 0, 0].item()) > 0.05


@pytest.mark.slow
def test_hot_needles_have_the_correlation_of_boltzmann():
    """Two with springs to one point: <cos 2 (a - b)> of their angles by the engine, and by numbers drawn from exp(-U / kT)."""
    from workers.swarm.fields.harmonic import Harmonic

    energy, stiffness, chi = 1.380649e-5 * 300.0, 0.012, elongation(3.0)
    one = engine(
        kelvin=300.0, environments=4000, slice_seconds=0.1, num_substeps=20, fields=[Harmonic(stiffness=stiffness)], dtype=torch.float32
    )
    state = one.start(3.0)
    idle = torch.zeros(one.shape)
    found = []
    for number in range(90):
        one.advance(state, idle, idle)
        if number >= 60 and number % 15 == 14:
            angles = torch.atan2(state.directors[1, 0], state.directors[0, 0])
            found.append(torch.cos(2.0 * (angles[:, 0] - angles[:, 1])))
    torch.manual_seed(1)
    count = 2_000_000
    # the difference of two in springs of k each is in a spring of k / 2
    apart = torch.randn(2, count, dtype=torch.float64) * math.sqrt(2.0 * energy / stiffness)
    first, second = units(count, 2), units(count, 2)
    sigma = torch.tensor(2 * semi_axes(1.0, 3.0)[0] / 2 ** (1 / 6), dtype=torch.float64)
    weights = torch.exp(-gay_berne.energies(apart, first, second, sigma, torch.tensor(energy, dtype=torch.float64), chi) / energy)
    cosine = 2.0 * (first * second).sum(0).square() - 1.0
    expected = ((weights * cosine).sum() / weights.sum()).item()
    values = torch.stack(found).mean(0).double()
    error = values.std().item() / math.sqrt(len(values))
    assert expected > 0.5
    assert error < 0.01 * expected
    assert abs(values.mean().item() - expected) < 3 * error


def test_what_does_not_go_together_is_refused():
    needle = Body(radius=1.0, friction=spheroid(1.0, 3.0, 8.9e-4), temperature=300.0, contact_temperature=300.0)
    ball = Body(radius=1.0, friction=sphere(1.0, 8.9e-4), temperature=300.0, contact_temperature=300.0)
    disc = Body(radius=1.0, friction=spheroid(1.0, 0.5, 8.9e-4), temperature=300.0, contact_temperature=300.0, aspect=0.5)
    long = Body(radius=1.0, friction=spheroid(1.0, 3.0, 8.9e-4), temperature=300.0, contact_temperature=300.0, aspect=3.0)
    settings = dict(num_environments=1, num_agents=2, slice_seconds=0.1, num_substeps=10)
    with pytest.raises(ConfigError, match="spheres or spheroids, got policies of both"):
        Engine([needle, ball], [0, 1], **settings)
    with pytest.raises(ConfigError, match="aspect must be given too"):
        Engine([needle], [0], contact="gay_berne", **settings)
    with pytest.raises(ConfigError, match="one aspect ratio for all, got 0.5, 3.0"):
        Engine([disc, long], [0, 1], contact="gay_berne", **settings)
    with pytest.raises(ConfigError, match="contact must be one of wca, gay_berne, got 'hard'"):
        Engine([ball], [0], contact="hard", **settings)
    with pytest.raises(ConfigError, match="num_dimensions must be 2 or 3, got 4"):
        Engine([ball], [0], num_dimensions=4, **settings)
