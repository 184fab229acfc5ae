"""Motion with inertia against theory: equipartition, ballistic and diffusive displacements, correlations, and the overdamped limit."""

import math
from typing import Any

import pytest
import torch

from workers.errors import ConfigError
from workers.swarm.engine import Body, Engine, State
from workers.swarm.friction import BOLTZMANN, spheroid
from workers.swarm.langevin import Step

KT = BOLTZMANN * 300.0
FRICTION = spheroid(0.5, 1.0, 8.9e-4)
# heavy, so that velocities last 1 s, and spins as long
MASS, INERTIA = FRICTION.along * 1.0, FRICTION.rotation * 1.0


def engine(num: int = 30_000, *, agents: int = 1, kelvin: float = 300.0, aspect: float = 1.0, mass: Any = MASS, **more: Any) -> Engine:
    inertia = None if mass is None else INERTIA
    friction = spheroid(0.5, aspect, 8.9e-4)
    body = Body(radius=0.5, friction=friction, temperature=kelvin, contact_temperature=300.0, aspect=aspect, mass=mass, inertia=inertia)
    settings = dict(slice_seconds=0.1, num_substeps=2, dtype=torch.float64, dynamics="langevin") | more
    return Engine([body], [1], num_environments=num, num_agents=agents, **settings)


def within(values: torch.Tensor, expected: float) -> None:
    """Their mean is within 3 standard errors of what is expected, which are 1 % of it at most."""
    values = values.flatten().double()
    error = values.std().item() / math.sqrt(len(values))
    assert error < 0.01 * abs(expected)
    assert abs(values.mean().item() - expected) < 3 * error


def began(one: Engine) -> State:
    """All at the origin, in equilibrium, facing along x."""
    place = torch.zeros(one.num_dimensions, 1)
    facing = place.clone()
    facing[0] = 1.0
    return one.start_at(place, facing)


def advanced(one: Engine, state: State, slices: int, speed: float = 0.0) -> State:
    idle = torch.zeros(one.shape, dtype=one.dtype)
    for _ in range(slices):
        one.advance(state, idle + speed * one.along, idle)
    return state


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("seconds", [0.1, 30.0])
def test_energy_is_shared_equally(dimensions: int, seconds: float):
    """From rest, with substeps below and far above m / gamma."""
    one = engine(num_dimensions=dimensions, slice_seconds=seconds)
    state = began(one)
    state.velocities, state.spins = 0.0 * state.velocities, 0.0 * state.spins
    advanced(one, state, 60 if seconds < 1.0 else 2)
    share = 1.0 - math.exp(-2.0 * 60 * 0.1) if seconds < 1.0 else 1.0
    within(state.velocities.square(), share * KT / MASS)
    within(state.spins.square(), share * KT / INERTIA)


@pytest.mark.parametrize(("seconds", "slices"), [(0.01, 1), (0.1, 5), (1.0, 3), (50.0, 2)])
def test_displacements_are_ballistic_and_then_diffusive(seconds: float, slices: int):
    """2 d D (t - tau (1 - exp(-t / tau))), whatever the substep is."""
    time, diffusion = seconds * slices, KT / FRICTION.along
    state = advanced(one := engine(slice_seconds=seconds), began(one), slices)
    within(state.positions.square(), 2.0 * diffusion * (time - (1.0 - math.exp(-time))))


def test_velocities_forget_themselves_as_friction_says():
    one = engine(100_000)
    state = began(one)
    first, spin = state.velocities.clone(), state.spins.clone()
    advanced(one, state, 5)
    within(first * state.velocities, KT / MASS * math.exp(-0.5))
    within(spin * state.spins, KT / INERTIA * math.exp(-0.5))


def test_with_water_s_mass_it_is_overdamped_motion():
    """m / gamma = 6e-8 s: diffusion, turning and swimming in slices of 0.1 s."""
    one = engine(40_000, mass=None, num_substeps=10)
    state = advanced(one, began(one), 20, speed=5.0)
    along, _, rotation = FRICTION.diffusion(300.0)
    expected = 4 * along * 2.0 + 2 * (5.0 / rotation) ** 2 * (rotation * 2.0 - 1 + math.exp(-2.0 * rotation))
    within(state.positions.square().sum(0), expected)


@pytest.mark.parametrize("aspect", [3.0, 1 / 3])
def test_a_spheroid_diffuses_along_and_across_its_director(aspect: float):
    along, across, _ = spheroid(0.5, aspect, 8.9e-4).diffusion(300.0)
    one = engine(40_000, mass=None, aspect=aspect, slice_seconds=1e-3)
    x, y = advanced(one, began(one), 1).positions
    within(x.square(), 2e-3 * along)
    within(y.square(), 2e-3 * across)


def test_directors_in_space_decorrelate():
    one = engine(60_000, mass=None, num_dimensions=3, num_substeps=2)
    within(advanced(one, began(one), 3).directors[0], math.exp(-0.6 * FRICTION.diffusion(300.0)[2]))


def test_without_friction_a_substep_is_verlet_s_and_with_much_of_it_euler_s():
    light, heavy = Step.of(1e-9, 1.0, 0.0, 0.5), Step.of(1.0, 1e-9, 0.0, 0.5)
    # w = F / gamma: x += v dt + F / m dt^2 / 2
    assert light.coasted == pytest.approx(0.5) and light.driven / 1e-9 == pytest.approx(0.125)
    assert light.before / 1e-9 == pytest.approx(0.25) == light.after / 1e-9
    assert (heavy.coasted, heavy.driven) == pytest.approx((0.0, 0.5), abs=1e-8)
    assert (heavy.kept, heavy.before, heavy.after) == pytest.approx((0.0, 0.0, 1.0), abs=1e-8)


@pytest.mark.parametrize("g", [1e-6, 0.0099, 0.0101, 0.0299, 0.0301, 0.5, 5.0, 1e6])
def test_two_substeps_are_one_of_twice_the_length(g: float):
    """Of the exact law: variances, correlation and means compose, also where series take over from differences."""
    half, whole = (Step.of(g, 1.0, 1.0, seconds) for seconds in (1.0, 2.0))
    x, v, both = half.spread**2, half.kick**2 + half.own_kick**2, half.spread * half.kick
    assert half.kept**2 == pytest.approx(whole.kept)
    assert half.coasted * (1 + half.kept) == pytest.approx(whole.coasted)
    assert half.kept**2 * v + v == pytest.approx(whole.kick**2 + whole.own_kick**2)
    assert x + half.coasted**2 * v + 2 * half.coasted * both + x == pytest.approx(whole.spread**2, rel=1e-6)
    assert half.kept * (both + half.coasted * v) + both == pytest.approx(whole.spread * whole.kick, rel=1e-6)


def test_two_that_push_each_other_come_to_rest_where_contact_balances_the_force():
    force = 0.05
    one = engine(1, agents=2, kelvin=0.0, mass=None, slice_seconds=0.02, num_substeps=100)
    state = one.start_at(torch.tensor([[0.0, 1.2], [0.0, 0.0]]), torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
    full = torch.full(one.shape, force, dtype=one.dtype)
    for _ in range(60):
        one.advance(state, full, 0 * full)
    distance = (state.positions[0, ..., 1] - state.positions[0, ..., 0]).item()
    sixth = (2 ** (-1 / 6) / distance) ** 6
    assert 24 * KT / distance * sixth * (2 * sixth - 1) == pytest.approx(force, rel=1e-6)
    assert state.velocities[0].abs().max() < 1e-9


def test_masses_of_nothing_are_refused():
    with pytest.raises(ConfigError, match="mass and inertia must be above 0"):
        engine(1, mass=0.0)
    with pytest.raises(ConfigError, match="dynamics must be one of overdamped, langevin, got 'newton'"):
        engine(1, dynamics="newton")
