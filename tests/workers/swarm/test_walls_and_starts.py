"""Walls that hold agents, places where agents begin, and temperatures that change between slices."""

import math
from typing import Any

import pytest
import torch

from workers.errors import ConfigError
from workers.swarm.contacts import Rod
from workers.swarm.engine import Body, Engine
from workers.swarm.fields.gravity import Gravity
from workers.swarm.friction import BOLTZMANN, sphere, spheroid
from workers.swarm.walls import Plane, Segment, cuboid, rectangle

KT = BOLTZMANN * 300.0


def engine(num: int = 1, *, agents: int = 1, radius: float = 0.5, kelvin: float = 300.0, policies: int = 1, **more: Any) -> Engine:
    body = Body(radius=radius, friction=sphere(radius, 8.9e-4), temperature=kelvin, contact_temperature=300.0)
    settings = dict(slice_seconds=0.02, num_substeps=20, dtype=torch.float64) | more
    return Engine([body] * policies, list(range(1, policies + 1)), num_environments=num, num_agents=agents, **settings)


def wca(distance: torch.Tensor, sigma: float) -> torch.Tensor:
    sixth = (sigma / distance) ** 6
    return torch.where(distance < sigma * 2 ** (1 / 6), 4 * KT * (sixth**2 - sixth) + KT, 0.0)


def push(distance: float, sigma: float) -> float:
    sixth = (sigma / distance) ** 6
    return 24 * KT / distance * sixth * (2 * sixth - 1)


def within(values: torch.Tensor, expected: float) -> None:
    """Their mean is within 3 standard errors of what is expected, which are 1 % of it at most."""
    values = values.flatten().double()
    error = values.std().item() / math.sqrt(len(values))
    assert error < 0.01 * abs(expected)
    assert abs(values.mean().item() - expected) < 3 * error


@pytest.mark.parametrize(("dimensions", "walls"), [(2, [Segment((3.0, -9.0), (3.0, 9.0))]), (3, [Plane(0, 3.0)])])
def test_an_agent_that_swims_against_a_wall_stands_where_contact_balances_its_force(dimensions: int, walls: list):
    force = 0.05
    one = engine(kelvin=0.0, num_dimensions=dimensions, walls=walls, num_substeps=200)
    place, facing = torch.zeros(dimensions, 1), torch.zeros(dimensions, 1)
    facing[0] = 1.0
    state = one.start_at(place, facing)
    for _ in range(60):
        one.advance(state, torch.full(one.shape, force, dtype=one.dtype), torch.zeros(one.shape, dtype=one.dtype))
    distance = 3.0 - state.positions[0].item()
    assert 0.0 < distance < 0.5
    assert push(distance, 0.5 / 2 ** (1 / 6)) == pytest.approx(force, rel=1e-6)
    assert 0 < one.num_by_substeps < 60


def test_the_end_of_a_wall_repels_as_a_point_does():
    """An agent that swims past it at less than its radius gives way to the side."""
    one = engine(kelvin=0.0, walls=[Segment((1.0, -5.0), (1.0, -0.2))], num_substeps=100)
    state = one.start_at(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [0.0]]))
    for _ in range(60):
        one.advance(state, torch.full(one.shape, 0.02, dtype=one.dtype), torch.zeros(one.shape, dtype=one.dtype))
    x, y = state.positions.flatten().tolist()
    assert x > 1.5 and 0.25 < y < 0.35


@pytest.mark.parametrize("dimensions", [2, 3])
def test_heated_swimmers_stay_in_their_box(dimensions: int):
    walls = rectangle(8.0, 6.0) if dimensions == 2 else cuboid(8.0, 6.0, 6.0)
    one = engine(50, agents=6, num_dimensions=dimensions, walls=walls, dtype=torch.float32, slice_seconds=0.1, num_substeps=400)
    state = one.start(2.4)
    for _ in range(10):
        one.advance(state, 5.0 * one.along.expand(one.shape), torch.zeros(one.shape))
    assert state.positions[0].abs().max() < 4.0
    assert state.positions[1:].abs().max() < 3.0
    assert state.positions.abs().max() > 3.0


@pytest.mark.slow
def test_sediment_on_a_wall_stays_at_the_heights_of_boltzmann():
    """Begun at heights drawn from exp(-(U + w h) / kT), for more than the time in which they are forgotten."""
    weight = 0.03
    one = engine(20_000, fields=[Gravity(weight=weight)], walls=[Segment((-1e3, 0.0), (1e3, 0.0))], slice_seconds=0.01, num_substeps=200)
    h = torch.linspace(0.2, 5.0, 200_001, dtype=torch.float64)
    weights = torch.exp(-(wca(h, 0.5 / 2 ** (1 / 6)) + weight * h) / KT)
    shares = weights.cumsum(0) / weights.sum()
    drawn = h[torch.searchsorted(shares, torch.rand(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64))]
    state = one.start_at(torch.tensor([[0.0], [9.0]]), torch.tensor([[1.0], [0.0]]))
    state.positions[1, 0, :, 0] = drawn
    idle = torch.zeros(one.shape, dtype=one.dtype)
    for _ in range(8):
        one.advance(state, idle, idle)
    assert abs(torch.corrcoef(torch.stack([drawn, state.positions[1, 0, :, 0]]))[0, 1].item()) < 0.4
    within(state.positions[1], ((h * weights).sum() / weights.sum()).item())


def test_walls_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="walls in 2 dimensions must be Segment, .* take rectangle"):
        engine(walls=cuboid(1.0, 1.0, 1.0))
    with pytest.raises(ConfigError, match="walls in 3 dimensions must be Plane"):
        engine(walls=rectangle(1.0, 1.0), num_dimensions=3)
    with pytest.raises(ConfigError, match=r"a wall must have a length, got one from \(1.0, 2.0\) to \(1.0, 2.0\)"):
        engine(walls=[Segment((1.0, 2.0), (1.0, 2.0))])
    with pytest.raises(ConfigError, match="the axis of a wall must be 0, 1 or 2, got 3"):
        engine(walls=[Plane(3, 1.0)], num_dimensions=3)
    with pytest.raises(ConfigError, match="a rod turns in a plane"):
        engine(rod=Rod(), num_dimensions=3)


@pytest.mark.parametrize(
    ("disc", "more"),
    [
        (4.2, {}),
        (2.6, {"num_dimensions": 3}),
        (5.0, {"rod": Rod(length=8.0, num_beads=8)}),
        (6.0, {"walls": rectangle(7.0, 7.0)}),
        (5.0, {"walls": cuboid(5.0, 5.0, 5.0), "num_dimensions": 3}),
    ],
)
def test_no_two_agents_begin_where_they_touch_and_none_in_a_wall_or_behind_it(disc: float, more: dict[str, Any]):
    one = engine(40, agents=20, policies=2, **more)
    state = one.start(disc)
    again = one.start_at(state.positions, state.directors)
    assert torch.equal(again.positions, state.positions)
    assert (state.positions.norm(dim=0) <= disc).all()
    distances = torch.cdist(state.positions.movedim(0, -1), state.positions.movedim(0, -1)) + 9.0 * torch.eye(20, dtype=one.dtype)
    assert distances.min() >= 1.0
    if "walls" in more:
        assert state.positions.abs().max() < 3.5 - 0.5
    if "rod" in more:
        assert one.surroundings.overlaps(
            state.positions.flatten(1, 2), state.directors.flatten(1, 2), state.rods.flatten(), torch.zeros(80).long()
        )[1].any() == torch.tensor(False)


def test_spheroids_begin_apart_by_their_own_contact():
    body = Body(radius=0.5, friction=spheroid(0.5, 3.0, 8.9e-4), temperature=300.0, contact_temperature=300.0, aspect=3.0)
    one = Engine(
        [body], [1], num_environments=30, num_agents=12, slice_seconds=0.02, num_substeps=10, contact="gay_berne", dtype=torch.float64
    )
    state = one.start(4.0)
    pairs, _ = one.surroundings.overlaps(state.positions.flatten(1, 2), state.directors.flatten(1, 2), None, torch.zeros(30).long())
    assert not pairs.any()
    # side by side they come nearer than spheres of their volume
    assert torch.cdist(*[state.positions[:, 0].movedim(0, -1)] * 2).add(9 * torch.eye(12)).min() < 1.0


def test_two_that_just_fit_find_their_places():
    state = engine(100, agents=2).start(0.8)
    assert (state.positions[..., 0] - state.positions[..., 1]).norm(dim=0).min() >= 1.0


def test_a_crowd_without_room_is_refused():
    with pytest.raises(
        ConfigError, match=r"no room for 30 agents of radius 0.5 um within 2 um: after 2000 tries .* agents fill 188% of it"
    ):
        engine(agents=30).start(2.0)


def test_agents_that_overlap_where_they_are_put_are_named():
    facing = torch.tensor([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    with pytest.raises(ConfigError, match="agents 0 and 2 of environment 0 of policy 0 overlap: their centres are 0.6 um apart"):
        engine(agents=3).start_at(torch.tensor([[0.0, 5.0, 0.6], [0.0, 0.0, 0.0]]), facing)
    with pytest.raises(ConfigError, match=r"agent 1 of environment 0 of policy 0 at \(4.8, 0\) um overlaps the rod or a wall"):
        engine(agents=3, walls=rectangle(10.0, 10.0)).start_at(torch.tensor([[0.0, 4.8, 2.0], [0.0, 0.0, 0.0]]), facing)
    with pytest.raises(
        ConfigError, match=r"positions must have the shape \(2, 1, 1, 3\) .* or \(2, 3\) for all environments, got \(3, 2\)"
    ):
        engine(agents=3).start_at(facing.T, facing)
    with pytest.raises(ConfigError, match="directors must have length 1, got lengths from 2 to 2"):
        engine(agents=3).start_at(torch.tensor([[0.0, 5.0, 10.0], [0.0, 0.0, 0.0]]), 2.0 * facing)


def test_temperatures_change_between_slices_and_nothing_else_does():
    """After the change as an engine that had this temperature all along, from the same state and slice."""
    cold, hot = engine(5, agents=3, policies=2, kelvin=100.0), engine(5, agents=3, policies=2, kelvin=400.0)
    state, idle = cold.start(3.0), torch.zeros(cold.shape, dtype=cold.dtype)
    cold.advance(state, idle, idle)
    before = state.positions
    cold.set_temperatures([400.0, 100.0])
    hot.slices = 1
    other = hot.start_at(state.positions, state.directors)
    # the same directors to the last bit
    other.directors = state.directors
    cold.advance(state, idle, idle)
    hot.advance(other, idle, idle)
    assert torch.equal(state.positions[:, 0], other.positions[:, 0])
    assert not torch.equal(state.positions[:, 1], other.positions[:, 1])
    assert [body.temperature for body in cold.bodies] == [400.0, 100.0]
    assert not torch.equal(before, state.positions)


def test_a_rod_has_the_temperature_of_its_policy():
    rod = Rod(length=10.0, num_beads=10, start_angle=0.0, friction=1e-2)
    one = engine(25_000, rod=rod, kelvin=0.0, dtype=torch.float32)
    one.set_temperatures([200.0])
    state = one.start_at(torch.tensor([[100.0], [100.0]]), torch.tensor([[1.0], [0.0]]))
    for _ in range(5):
        one.advance(state, torch.zeros(one.shape), torch.zeros(one.shape))
    within(state.rods.square(), 2 * BOLTZMANN * 200.0 / rod.friction * 0.1)


@pytest.mark.parametrize("wrong", [[300.0, 300.0], [-1.0], [math.nan]])
def test_temperatures_that_cannot_be_are_refused(wrong: list[float]):
    with pytest.raises(ConfigError, match="temperatures must be 1 numbers of at least 0 K, one a policy"):
        engine().set_temperatures(wrong)


def test_an_idle_agent_that_is_pushed_pushes_on_within_a_slice():
    """A row at rest at T = 0, with 0.02 um between neighbours and a swimmer behind it, in one long slice: none comes to overlap deeply."""
    one = engine(agents=4, kelvin=0.0, slice_seconds=2.0, num_substeps=2000)
    state = one.start_at(torch.tensor([[0.0, 1.02, 2.04, 3.06], [0.0] * 4]), torch.tensor([[1.0] * 4, [0.0] * 4]))
    forces = torch.zeros(one.shape, dtype=one.dtype)
    forces[..., 0] = 3.0 * one.along[0, 0, 0]
    one.advance(state, forces, 0 * forces)
    apart = state.positions[0].flatten().diff()
    assert state.positions[0, ..., 3].item() > 3.5
    assert apart.min() > 0.9
