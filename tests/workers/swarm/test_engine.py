"""The engine against theory, each within 3 sigma of a sigma of 1 % or less, and independent of who else is in the batch."""

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from workers.swarm.contacts import Rod
from workers.swarm.engine import Body, Engine, State
from workers.swarm.field import Field
from workers.swarm.fields.gravity import Gravity
from workers.swarm.friction import BOLTZMANN, sphere, spheroid

VISCOSITY = 8.9e-4


def engine(num: int = 20_000, *, radius: float = 0.5, aspect: float = 1.0, kelvin: float = 300.0, agents: int = 1, **more: Any) -> Engine:
    body = Body(radius=radius, friction=spheroid(radius, aspect, VISCOSITY), temperature=kelvin, contact_temperature=300.0)
    settings = {"slice_seconds": 0.1, "num_substeps": 10, "dtype": torch.float64} | more
    return Engine([body], [1], num_environments=num, num_agents=agents, **settings)


def at_origin(one: Engine) -> State:
    """All at one point, and facing along x."""
    positions = torch.zeros(one.num_dimensions, *one.shape, dtype=one.dtype)
    directors = positions.clone()
    directors[0] = 1.0
    return State(positions, directors)


def ones(one: Engine) -> torch.Tensor:
    return torch.ones(one.shape, dtype=one.dtype)


def moved(one: Engine, seconds: float, speed: float = 0.0, rate: float = 0.0) -> Iterator[State]:
    """The states at the ends of the slices, with actions that give this speed and turn rate."""
    state = at_origin(one)
    for _ in range(round(seconds / one.slice_seconds)):
        one.advance(state, ones(one) * speed * one.along, ones(one) * rate * one.rotation)
        yield state


def last(states: Iterator[State]) -> State:
    *_, state = states
    return state


def within(values: torch.Tensor, expected: float) -> None:
    """Their mean is within 3 standard errors of what is expected, which are 1 % of it at most."""
    values = values.flatten().double()
    error = values.std().item() / math.sqrt(len(values))
    assert error < 0.01 * abs(expected)
    assert abs(values.mean().item() - expected) < 3 * error


@pytest.mark.parametrize("dimensions", [2, 3])
def test_passive_diffusion(dimensions: int):
    along, _, _ = spheroid(0.5, 1.0, VISCOSITY).diffusion(300.0)
    one = engine(num_dimensions=dimensions)
    within(last(moved(one, 1.0)).positions.square().sum(0), 2 * dimensions * along)


@pytest.mark.parametrize(("dimensions", "num_substeps"), [(2, 2), (2, 10), (3, 2), (3, 10)])
def test_directors_decorrelate(dimensions: int, num_substeps: int):
    """By exp(-(d - 1) D_r t), however coarse the substeps are."""
    _, _, rotation = spheroid(0.5, 1.0, VISCOSITY).diffusion(300.0)
    one = engine(60_000 if dimensions == 3 else 20_000, num_dimensions=dimensions, num_substeps=num_substeps)
    directors = last(moved(one, 0.3)).directors
    within(directors[0], math.exp(-0.3 * (dimensions - 1) * rotation))
    assert torch.allclose(directors.square().sum(0), torch.ones_like(directors[0]))


@pytest.mark.parametrize("dimensions", [2, 3])
def test_an_active_particle_diffuses_as_a_persistent_walk(dimensions: int):
    along, _, rotation = spheroid(0.5, 1.0, VISCOSITY).diffusion(300.0)
    speed, time, decay = 5.0, 3.0, (dimensions - 1) * rotation
    expected = 2 * dimensions * along * time + 2 * (speed / decay) ** 2 * (decay * time - 1 + math.exp(-decay * time))
    within(last(moved(engine(40_000, num_dimensions=dimensions), time, speed)).positions.square().sum(0), expected)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_driven_turn_goes_in_circles_without_noise(dimensions: int):
    one = engine(1, kelvin=0.0, slice_seconds=1.0, num_substeps=200, num_dimensions=dimensions)
    state = last(moved(one, 3.0, speed=2.0, rate=math.pi / 6))
    assert state.directors.flatten().tolist()[:2] == pytest.approx([0.0, 1.0], abs=1e-12)
    radius = 2.0 / (math.pi / 6)
    assert state.positions.flatten().tolist()[:2] == pytest.approx([radius, radius], rel=1e-4)


def test_at_temperature_0_nothing_moves_by_itself():
    assert last(moved(engine(kelvin=0.0), 1.0)).positions.abs().max() == 0


@pytest.mark.parametrize("aspect", [3.0, 1 / 3])
def test_a_spheroid_diffuses_along_and_across_its_director(aspect: float):
    """For a time in which it hardly turns; then isotropically, by the mean of both."""
    along, across, rotation = spheroid(0.5, aspect, VISCOSITY).diffusion(300.0)
    short = engine(40_000, aspect=aspect, slice_seconds=1e-3)
    x, y = last(moved(short, 1e-3)).positions
    within(x.square(), 2e-3 * along)
    within(y.square(), 2e-3 * across)
    x, y = last(moved(engine(40_000, aspect=aspect), 2.0)).positions
    mean, half = (along + across) / 2, (along - across) / 2
    decay = (1 - math.exp(-4 * rotation * 2.0)) / (4 * rotation)
    within(x.square(), 2 * (mean * 2.0 + half * decay))
    within(y.square(), 2 * (mean * 2.0 - half * decay))


def pair(one: Engine, distance: float) -> State:
    state = at_origin(one)
    state.positions[0, ..., 1] = distance
    state.directors[0, ..., 1] = -1.0
    return state


def test_two_that_push_each_other_stand_where_contact_balances_the_force():
    """At T = 0 both at full force: F_WCA(r) = f, below the sum of the radii."""
    force = 0.05
    one = engine(1, kelvin=0.0, agents=2, slice_seconds=0.02, num_substeps=400)
    state = pair(one, 1.2)
    for _ in range(60):
        one.advance(state, force * ones(one), 0 * ones(one))
    distance = (state.positions[0, ..., 1] - state.positions[0, ..., 0]).item()
    sigma, depth = 1.0 / 2 ** (1 / 6), BOLTZMANN * 300.0
    sixth = (sigma / distance) ** 6
    assert 24 * depth / distance * sixth * (2 * sixth - 1) == pytest.approx(force, rel=1e-6)
    assert distance < 1.0


def test_two_that_do_not_touch_do_not_feel_each_other():
    one, alone = engine(1, agents=2, kelvin=0.0), engine(1, agents=1, kelvin=0.0)
    state = pair(one, 50.0)
    for _ in range(3):
        one.advance(state, 0.01 * ones(one), 0 * ones(one))
    assert one.num_by_substeps == 0
    free = at_origin(alone)
    for _ in range(3):
        alone.advance(free, 0.01 * ones(alone), 0 * ones(alone))
    assert torch.equal(free.positions[..., 0], state.positions[..., 0])


def test_a_free_environment_moves_alike_whether_it_is_thought_near_or_not(monkeypatch: pytest.MonkeyPatch):
    """The bridge of an environment by substeps ends where the one draw of a free one does."""
    free, near = (engine(50, agents=3, dtype=torch.float64) for _ in range(2))
    everywhere = torch.ones(1, 50, dtype=torch.bool), torch.ones(1, 50, 3, dtype=torch.bool)
    monkeypatch.setattr(near.surroundings, "near", lambda *of_slice: everywhere)
    states = [one.start(1000.0) for one in (free, near)]
    forces = torch.full((1, 50, 3), 0.02, dtype=torch.float64)
    for _ in range(5):
        for one, state in zip((free, near), states):
            one.advance(state, forces, 0 * forces)
    assert near.num_by_substeps == 250
    assert torch.allclose(states[0].positions, states[1].positions, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_two_on_a_spring_are_apart_as_boltzmann_says():
    """Their mean distance, with contact and a spring in the exponent."""
    one = engine(4_000, agents=2, radius=0.5, slice_seconds=0.002, num_substeps=16)
    state = one.start(0.8)
    stiffness = 0.02
    for _ in range(800):
        # a spring between the two, by their actions: along the director, which is turned to the other
        apart = state.positions[..., 1] - state.positions[..., 0]
        distance = apart.square().sum(0).sqrt()
        state.directors = torch.stack([apart, -apart], -1) / distance[..., None]
        forces = stiffness * distance[..., None].expand(-1, -1, 2)
        one.advance(state, forces.contiguous(), 0 * forces)
    distance = (state.positions[..., 1] - state.positions[..., 0]).square().sum(0).sqrt()
    energy, sigma, r = BOLTZMANN * 300.0, 1.0 / 2 ** (1 / 6), torch.linspace(0.6, 6.0, 20_001, dtype=torch.float64)
    sixth = (sigma / r) ** 6
    contact = torch.where(r < 1.0, 4 * energy * (sixth**2 - sixth) + energy, 0.0)
    weights = r * torch.exp(-(contact + 0.5 * stiffness * r.square()) / energy)
    expected = (r * weights).sum() / weights.sum()
    within(distance, expected.item())


@pytest.mark.parametrize(
    ("aspect", "dtype", "disc"),
    [(1.0, torch.float32, 20.0), (1.0, torch.float64, 5.0), (3.0, torch.float32, 20.0), (3.0, torch.float64, 5.0)],
)
def test_an_agent_s_path_does_not_depend_on_who_else_is_in_the_batch(aspect: float, dtype: torch.dtype, disc: float):
    """In a crowd rounding grows, so that there only double precision tells."""
    body = Body(radius=0.5, friction=spheroid(0.5, aspect, VISCOSITY), temperature=300.0, contact_temperature=300.0)
    cold = Body(radius=0.5, friction=spheroid(0.5, aspect, VISCOSITY), temperature=150.0, contact_temperature=300.0)
    more = dict(num_environments=4, num_agents=10, slice_seconds=0.1, num_substeps=10, dtype=dtype)
    batch, alone = Engine([cold, body, cold], [7, 8, 9], **more), Engine([body], [8], **more)
    states = [batch.start(disc), alone.start(disc)]
    for _ in range(20):
        for one, state in zip((batch, alone), states):
            forces = 0.05 * ones(one)
            one.advance(state, forces, 0 * forces)
    assert alone.num_by_substeps > 5
    assert torch.allclose(states[0].positions[:, 1], states[1].positions[:, 0], atol=1e-4)


def test_directors_begin_evenly_on_the_sphere_and_positions_in_the_ball():
    state = engine(20_000, num_dimensions=3).start(10.0)
    within(state.directors.square()[2], 1 / 3)
    within(state.positions.square().sum(0), 3 / 5 * 100)
    assert abs(state.directors.mean().item()) < 0.01


def test_sediment_has_the_height_of_boltzmann():
    """Under a weight above a wall that repels softly: the mean height of exp(-U / kT), by substeps in a field."""
    weight, energy, stiffness = 5e-3, BOLTZMANN * 300.0, 0.2

    class Floor(Field):
        def force(self, positions: torch.Tensor) -> torch.Tensor:
            found = torch.zeros_like(positions)
            found[1] = stiffness * (-positions[1]).clamp(min=0.0)
            return found

    one = engine(20_000, slice_seconds=0.05, num_substeps=10, fields=[Gravity(weight=weight), Floor()])
    state = at_origin(one)
    for _ in range(400):
        one.advance(state, 0 * ones(one), 0 * ones(one))
    y = torch.linspace(-1.0, 30.0, 200_001, dtype=torch.float64)
    weights = torch.exp(-(weight * y + 0.5 * stiffness * (-y).clamp(min=0.0).square()) / energy)
    within(state.positions[1], ((y * weights).sum() / weights.sum()).item())


def test_in_a_periodic_box_an_image_is_touched():
    force = 0.05
    one = engine(1, kelvin=0.0, agents=2, slice_seconds=0.02, num_substeps=400, box=20.0)
    state = pair(one, 18.8)
    state.directors *= -1.0
    for _ in range(60):
        one.advance(state, force * ones(one), 0 * ones(one))
    distance = 20.0 - (state.positions[0, ..., 1] - state.positions[0, ..., 0]).item()
    assert 0.8 < distance < 1.0


def test_an_agent_that_pushes_a_rod_turns_it_by_its_lever():
    """At T = 0 an agent that pushes at right angles near the tip: force times lever over the friction of both, in the push's sense."""
    force, rod = 0.04, Rod(start_angle=0.0)
    one = engine(1, radius=2.14, kelvin=0.0, slice_seconds=0.5, num_substeps=500, rod=rod)
    state = one.start_at(torch.tensor([[45.0], [-3.1]]), torch.tensor([[0.0], [1.0]]))
    before = 0.0
    for number in range(20):
        one.advance(state, force * ones(one), 0 * ones(one))
        if number == 9:
            before = state.rods.item()
    friction = rod.friction + sphere(2.14, VISCOSITY).along * 45.0**2
    assert state.rods.item() - before == pytest.approx(force * 45.0 / friction * 5.0, rel=0.01)


def test_a_rod_turns_by_itself_as_its_friction_says():
    rod = Rod(start_angle=0.0, friction=1e-2)
    one = engine(20_000, rod=rod)
    state = one.start_at(torch.tensor([[1000.0], [1000.0]]), torch.tensor([[1.0], [0.0]]))
    for _ in range(10):
        one.advance(state, 0 * ones(one), 0 * ones(one))
    assert one.num_by_substeps == 0
    within(state.rods.square(), 2 * BOLTZMANN * 300.0 / rod.friction)
