"""How many substeps a slice needs, by each of the criteria, and what is said where there are fewer."""

import contextlib
import math
from typing import Any

import pytest

from workers.errors import ConfigError
from workers.swarm.field import Field
from workers.swarm.fields.gravity import Gravity
from workers.swarm.fields.harmonic import Harmonic
from workers.swarm.fields.poiseuille_flow import PoiseuilleFlow
from workers.swarm.fields.shear_flow import ShearFlow
from workers.swarm.fields.vortex_flow import VortexFlow
from workers.swarm.friction import BOLTZMANN, spheroid
from workers.swarm.resolution import Resolution, check_substeps, needed_substeps


def resolution(radius: float = 2.5, *, lengths_per_second: float = 5.0, aspect: float = 1.0, **more: Any) -> Resolution:
    settings = dict(temperature=300.0, contact_temperature=300.0, aspect=aspect) | more
    return Resolution(friction=spheroid(radius, aspect, 8.9e-4), radius=radius, speed=2 * radius * lengths_per_second, **settings)


def test_a_slice_of_chemotaxis_needs_twenty_substeps_for_the_largest_and_fastest():
    """k dt / gamma of two that push each other is 1.9 for ten."""
    assert needed_substeps(resolution(), 0.1) == 20
    assert needed_substeps(resolution(2.14, lengths_per_second=1.127 / 4.28), 1.0) < 100


@pytest.mark.parametrize("radius", [0.025, 0.1, 0.5, 2.5])
@pytest.mark.parametrize("speed", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("more", [{}, {"walls": True}, {"aspect": 3.0, "gay_berne": True}])
def test_each_criterion_holds_at_its_longest_substep(radius: float, speed: float, more: dict[str, Any]):
    one = resolution(radius, lengths_per_second=speed, **more)
    turn, field, way, contact, throw = one.longest().values()
    assert field == math.inf
    along, across, rotation = one.friction.diffusion(300.0)
    assert rotation * turn == pytest.approx(0.1)
    least = radius * (3.0 ** (-1 / 3) if "aspect" in more else 1.0)
    assert one.speed * way + math.sqrt(2 * max(along, across) * way) == pytest.approx(0.25 * least)
    assert 0 < contact < 1 / (57 * BOLTZMANN * 300 / (2 * radius) ** 2 / max(one.friction.along, one.friction.across))
    assert throw < math.inf
    needed = needed_substeps(one, 0.1)
    check_substeps(one, 0.1, needed)
    with pytest.raises(ConfigError, match="do not resolve") if needed > 1 else contextlib.nullcontext():
        check_substeps(one, 0.1, max(1, needed - 1))


def test_a_contact_relaxes_at_the_rate_that_is_told():
    """Against the difference of WCA's force by distance where it holds the swim force."""
    one = resolution()
    force, sigma, depth = one.friction.along * one.speed, 5.0 / 2 ** (1 / 6), BOLTZMANN * 300.0

    def push(r: float) -> float:
        return 24 * depth / r * (2 * (sigma / r) ** 12 - (sigma / r) ** 6)

    low, high = 0.6 * sigma, 5.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if push(middle) > force else (low, middle)
    stiffness = (push(low - 1e-5) - push(low + 1e-5)) / 2e-5
    assert one.longest()["the balance of a contact (k dt / gamma at most 1)"] == pytest.approx(
        one.friction.along / (2 * stiffness), rel=1e-5
    )


def test_without_heat_and_speed_the_contact_alone_counts():
    still = resolution(lengths_per_second=0.0, temperature=0.0)
    turn, field, way, contact, throw = still.longest().values()
    assert turn == field == way == throw == math.inf
    assert 0 < contact < math.inf


def test_too_few_substeps_are_refused_unless_allowed():
    with pytest.raises(
        ConfigError, match=r"10 substeps of 0.01 s .* the balance of a contact .* take at least 20 substeps, or timing.allow_coarse_dt=true"
    ):
        check_substeps(resolution(), 0.1, 10)
    with pytest.raises(ConfigError, match="do not resolve the"):
        check_substeps(resolution(0.025), 0.1, 200)


def test_a_contact_that_cannot_hold_the_swim_force_is_refused():
    with pytest.raises(ConfigError, match="cannot hold the swim force of 1.05 pN: its largest .* take at least 9.5"):
        needed_substeps(resolution(contact_temperature=1.0), 0.1)


def test_the_turning_alone_is_that_of_d15():
    one = resolution(0.1)
    needed = needed_substeps(one, 0.1, contacts=False)
    assert needed == math.ceil(0.1 * one.friction.diffusion(300.0)[2] / 0.1) == 186
    assert needed < needed_substeps(one, 0.1)


@pytest.mark.parametrize(
    ("field", "pace"),
    [
        (Harmonic(stiffness=2.0), 2.0 * 7.0),
        (ShearFlow(rate=-3.0), 3.0),
        (PoiseuilleFlow(speed=-10.0, half_width=4.0), 5.0),
        (VortexFlow(circulation=-1000.0, core=10.0), 5.0 / math.pi),
        (Gravity(weight=9.0), 0.0),
    ],
)
def test_the_pace_of_a_field_is_the_greatest_that_its_forces_and_flows_have(field: Field, pace: float):
    import torch

    assert field.pace(7.0) == pytest.approx(pace)
    x = torch.linspace(-30.0, 30.0, 1201, dtype=torch.float64)
    places, far = torch.stack(torch.meshgrid(x, x, indexing="ij")), 0.05
    if (gradient := field.gradient(places)) is not None:
        greatest = gradient.abs().max().item()
    else:
        greatest = 7.0 * (field.force(places + far) - field.force(places)).abs().max().item() / far
    assert greatest == pytest.approx(pace, rel=0.02)


def test_a_stiff_spring_asks_for_substeps():
    one = resolution(pace=1000.0)
    assert needed_substeps(one, 0.1) == 1000
    with pytest.raises(ConfigError, match="do not resolve the field .its rate times dt at most 0.1., which needs 0.0001 s"):
        check_substeps(one, 0.1, 999)


@pytest.mark.parametrize("walls", [False, True])
def test_what_is_resolved_is_not_thrown_apart(walls: bool):
    """Hot and crowded agents in the engine: with the substeps that are needed none moves in one by half a contact's distance."""
    import torch

    from workers.swarm.engine import Body, Engine
    from workers.swarm.walls import rectangle

    one = resolution(0.5, walls=walls)
    seconds = 0.02 / needed_substeps(one, 0.02)
    body = Body(radius=0.5, friction=one.friction, temperature=300.0, contact_temperature=300.0)
    more = dict(walls=rectangle(7.0, 7.0)) if walls else dict(box=7.0)
    engine = Engine([body], [1], num_environments=100, num_agents=16, slice_seconds=seconds, num_substeps=1, **more)
    state = engine.start(3.0 if walls else 3.4)
    forces, farthest = engine.along * one.speed * torch.ones(engine.shape), 0.0
    for _ in range(150):
        before = state.positions
        engine.advance(state, forces, 0 * forces)
        farthest = max(farthest, (state.positions - before).norm(dim=0).max().item())
    assert 0.1 < farthest < 0.5
