"""Forces and flows: velocities against their gradients, what they do to spheres and spheroids, and that each file holds one of them."""

import math
from typing import Any

import pytest
import torch

from workers.errors import ConfigError
from workers.swarm.engine import Body, Engine, State
from workers.swarm.field import Field
from workers.swarm.fields.gravity import Gravity
from workers.swarm.fields.harmonic import Harmonic
from workers.swarm.fields.none import Nothing
from workers.swarm.fields.poiseuille_flow import PoiseuilleFlow
from workers.swarm.fields.shear_flow import ShearFlow
from workers.swarm.fields.uniform_force import UniformForce
from workers.swarm.fields.vortex_flow import VortexFlow
from workers.swarm.friction import BOLTZMANN, spheroid

FLOWS = [ShearFlow(rate=2.0), PoiseuilleFlow(speed=5.0, half_width=3.0), VortexFlow(circulation=40.0, core=2.0)]
ALL = [Nothing(), UniformForce(), Gravity(), Harmonic(), *FLOWS]


def engine(num: int = 1, *, aspect: float = 1.0, kelvin: float = 0.0, **more: Any) -> Engine:
    body = Body(radius=0.5, friction=spheroid(0.5, aspect, 8.9e-4), temperature=kelvin, contact_temperature=300.0, aspect=aspect)
    settings = dict(num_agents=1, slice_seconds=0.01, num_substeps=100, dtype=torch.float64) | more
    return Engine([body], [1], num_environments=num, **settings)


def moved(one: Engine, slices: int, at: tuple[float, ...] = (0.0, 0.0), facing: tuple[float, ...] = (1.0, 0.0)) -> State:
    state = one.start_at(torch.tensor(at, dtype=one.dtype)[:, None], torch.tensor(facing, dtype=one.dtype)[:, None])
    idle = torch.zeros(one.shape, dtype=one.dtype)
    for _ in range(slices):
        one.advance(state, idle, idle)
    return state


def angle(state: State) -> float:
    return torch.atan2(state.directors[1], state.directors[0]).item()


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("flow", FLOWS)
def test_a_gradient_is_that_of_the_velocity_and_the_fluid_stays_as_dense(flow: Field, dimensions: int):
    torch.manual_seed(0)
    # near the axis too, where the vortex goes over to its series
    positions = torch.randn(dimensions, 500, dtype=torch.float64) * torch.logspace(-4, 0.6, 500, dtype=torch.float64)
    positions.requires_grad_()
    velocity = flow.velocity(positions)
    expected = torch.stack([torch.autograd.grad(row.sum(), positions, retain_graph=True, materialize_grads=True)[0] for row in velocity])
    found = flow.gradient(positions.detach())
    assert torch.allclose(found, expected, rtol=1e-6, atol=1e-8)
    assert found.diagonal(dim1=0, dim2=1).sum(-1).abs().max() < 1e-12


@pytest.mark.parametrize("field", ALL)
def test_settings_of_a_field_come_back_and_it_is_named_by_its_file(field: Field):
    assert type(field).from_plain({key: value for key, value in field.to_plain().items() if key != "name"}) == field
    assert field.group == "swarm.fields"
    assert type(field).__module__ == f"workers.{field.group}.{field.plugin_name()}"


@pytest.mark.parametrize("dimensions", [2, 3])
def test_uniform_forces_and_weights_move_agents_by_their_friction(dimensions: int):
    one = engine(num_dimensions=dimensions, fields=[UniformForce(x=0.02, y=0.01), Gravity(weight=0.03)])
    place, facing = (0.0,) * dimensions, (1.0,) + (0.0,) * (dimensions - 1)
    found = moved(one, 10, place, facing).positions.flatten().tolist()
    friction = one.along.item()
    expected = [0.02, 0.01, 0.0][:dimensions]
    expected[-1] -= 0.03
    assert found == pytest.approx([0.1 * value / friction for value in expected])


@pytest.mark.parametrize("dimensions", [2, 3])
def test_in_a_trap_agents_spread_as_boltzmann_says(dimensions: int):
    one = engine(20_000, kelvin=300.0, num_dimensions=dimensions, fields=[Harmonic(stiffness=0.05)], slice_seconds=0.1, num_substeps=20)
    # a substep of Euler's widens it by 1 / (1 - k dt / (2 gamma)), 1.5 %
    step = 0.05 * 0.005 / one.along.item()
    values = moved(one, 12, (0.0,) * dimensions, (1.0,) + (0.0,) * (dimensions - 1)).positions.square().flatten()
    expected, error = BOLTZMANN * 300.0 / 0.05 / (1 - step / 2), values.std().item() / math.sqrt(len(values))
    assert error < 0.01 * expected
    assert abs(values.mean().item() - expected) < 3 * error


def test_a_shear_carries_and_turns_a_sphere():
    state = moved(engine(fields=[ShearFlow(rate=2.0)]), 50, (0.0, 3.0))
    assert state.positions.flatten().tolist() == pytest.approx([2.0 * 3.0 * 0.5, 3.0])
    assert angle(state) == pytest.approx(-0.5 * 2.0 * 0.5)


def test_an_agent_in_a_vortex_goes_round_and_turns_by_half_the_vorticity():
    flow = VortexFlow(circulation=40.0, core=2.0)
    state = moved(engine(fields=[flow], slice_seconds=0.05), 20, (1.5, 0.0))
    rate = 40.0 / (2 * math.pi * 1.5**2) * (1 - math.exp(-(1.5**2) / 4))
    x, y = state.positions.flatten().tolist()
    assert math.hypot(x, y) == pytest.approx(1.5, rel=1e-3)
    assert math.atan2(y, x) == pytest.approx(rate * 1.0 - 2 * math.pi * round(rate / (2 * math.pi)), abs=2e-3)
    spin = 0.5 * 40.0 / (math.pi * 4) * math.exp(-(1.5**2) / 4)
    assert angle(state) == pytest.approx(spin, rel=1e-3)


def test_in_a_channel_agents_are_fastest_in_the_middle_and_rest_outside():
    one = engine(fields=[PoiseuilleFlow(speed=5.0, half_width=3.0)])
    ways = [moved(one, 10, (0.0, y)).positions[0].item() for y in (0.0, 1.5, -1.5, 4.0)]
    assert ways == pytest.approx([0.5, 0.375, 0.375, 0.0])


@pytest.mark.parametrize("aspect", [3.0, 1 / 3])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_spheroid_in_shear_tumbles_in_jeffery_s_time(aspect: float, dimensions: int):
    """tan(angle) = tan(2 pi t / T) / p from the gradient's axis, T = 2 pi (p + 1 / p) / rate; in space from the plane of shear."""
    one = engine(aspect=aspect, num_dimensions=dimensions, fields=[ShearFlow(rate=2.0)], num_substeps=200, slice_seconds=0.05)
    place, facing = (0.0,) * dimensions, (0.0, 1.0) + (0.0,) * (dimensions - 2)
    period = math.pi * (aspect + 1 / aspect)
    state = moved(one, 20, place, facing)
    x, y = state.directors[:2].flatten().tolist()
    phase = 2 * math.pi * 1.0 / period
    # from the y axis, along the flow
    assert math.atan2(x, y) == pytest.approx(math.atan2(aspect * math.sin(phase), math.cos(phase)), abs=2e-3)


@pytest.mark.parametrize("aspect", [3.0, 1 / 3])
def test_a_spheroid_out_of_the_plane_keeps_its_orbit(aspect: float):
    """Jeffery's constant C = tan(theta) sqrt(p^2 cos^2 phi + sin^2 phi) / p, with z as axis and phi from the gradient's."""
    one = engine(aspect=aspect, num_dimensions=3, fields=[ShearFlow(rate=2.0)], num_substeps=200, slice_seconds=0.05)

    def constant(directors: torch.Tensor) -> float:
        x, y, z = directors.flatten().tolist()
        return math.sqrt(x * x / aspect**2 + y * y) / abs(z)

    facing = (0.0, math.sin(0.8), math.cos(0.8))
    state = moved(one, 20, (0.0, 0.0, 0.0), facing)
    assert constant(state.directors) == pytest.approx(math.tan(0.8), rel=5e-3)
    assert abs(state.directors[0].item()) > 0.05


def test_friction_and_inertia_bring_agents_to_the_velocity_of_the_fluid():
    one = engine(fields=[ShearFlow(rate=2.0)], dynamics="langevin")
    state = moved(one, 50, (0.0, 3.0))
    assert state.velocities.flatten().tolist() == pytest.approx([6.0, 0.0], abs=1e-6)
    assert state.positions.flatten().tolist() == pytest.approx([3.0, 3.0], rel=1e-4)
    assert angle(state) == pytest.approx(-0.5, rel=1e-4)


def test_agents_that_a_field_brings_together_touch():
    """Two in a trap at T = 0, far apart at first, stand where contact balances the springs."""
    one = engine(num_agents=2, fields=[Harmonic(stiffness=0.2)], slice_seconds=2.0, num_substeps=2000)
    state = one.start_at(torch.tensor([[-4.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    idle = torch.zeros(one.shape, dtype=one.dtype)
    for _ in range(2):
        one.advance(state, idle, idle)
    distance = state.positions[0].flatten().diff().item()
    sixth = (2 ** (-1 / 6) / distance) ** 6
    assert 24 * BOLTZMANN * 300 / distance * sixth * (2 * sixth - 1) == pytest.approx(0.1 * distance, rel=1e-3)


def test_no_field_leaves_the_free_path():
    one = engine(100, kelvin=300.0, fields=[Nothing()])
    moved(one, 2)
    assert one.num_by_substeps == 0


def test_a_flow_without_its_gradient_is_refused():
    class Half(Field):
        def velocity(self, positions: torch.Tensor) -> torch.Tensor:
            return torch.zeros_like(positions)

    with pytest.raises(ConfigError, match="gives a velocity without the other; a flow must give both"):
        engine(fields=[Half()])
