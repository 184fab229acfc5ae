"""Agents that follow rules: each rule against a slow loop over plain numbers, and what comes of many that follow it."""

import cmath
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from swarm_worlds import ROD, alone_as_in_a_batch, engine, live, pairs_of, scattered, state

from workers.errors import ConfigError
from workers.swarm import noise
from workers.swarm.agents.baeuerle import Baeuerle
from workers.swarm.agents.constant import Constant
from workers.swarm.agents.lavergne import Lavergne
from workers.swarm.agents.lymburn import SPEEDS, Lymburn
from workers.swarm.agents.run_and_tumble import RunAndTumble
from workers.swarm.concentration import Concentration
from workers.swarm.engine import Engine, State

ALWAYS, NEVER = 1e9, 0.0


def seen(agents: Any, number: int, half_angle: float, reach: float | None) -> list[int]:
    """Numbers of the agents that one sees, by angles between vectors."""
    (place, facing), found = agents[number], []
    for k, (other, _) in enumerate(agents):
        distance = math.dist(place, other)
        if k == number or (reach is not None and distance > reach):
            continue
        cosine = sum((b - a) * e for a, b, e in zip(place, other, facing)) / distance
        if math.acos(max(-1.0, min(1.0, cosine))) <= half_angle:
            found.append(k)
    return found


# -- rules ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("agent", [Lavergne(threshold=0.02), Lavergne(threshold=0.005, half_angle=1.0, reach=40.0, force=0.5)])
def test_lavergne_swims_where_the_perception_is_at_the_threshold(dimensions: int, agent: Lavergne):
    one = engine(agents=12, num_dimensions=dimensions)
    where = scattered(one, [3])
    agents, expected = pairs_of(one, where), []
    for number, (place, _) in enumerate(agents):
        others = seen(agents, number, agent.half_angle, agent.reach)
        perception = sum(1 / (2 * math.pi * math.dist(place, agents[k][0])) for k in others)
        expected.append(agent.force if perception >= agent.threshold else 0.0)
    assert len(set(expected)) == 2
    found = agent.controls(one, where, where)
    assert found.force[0, 0].tolist() == expected
    assert not found.torque.any()


def test_lavergne_sees_what_is_at_its_side_but_not_what_is_behind_in_half_the_plane():
    one = engine(agents=2)
    for x, y, swims in ((0.0, 5.0, 1.0), (0.0, -5.0, 1.0), (-5.0, 0.0, 0.0), (-1e-6, 5.0, 0.0)):
        where = state([[0, 0], [x, y]], [[1, 0], [1, 0]])
        assert Lavergne(threshold=0.001).controls(one, where, where).force[0, 0, 0] == swims


def test_who_is_alone_stands_and_stays():
    one, where = engine(agents=1), state([[3, 4]], [[0, 1]])
    for agent in (Lavergne(), Baeuerle()):
        found = agent.controls(one, where, where)
        assert not found.force.any() and not found.torque.any()
    assert Baeuerle(alone=0.5).controls(one, where, where).force.item() == 0.5


@pytest.mark.parametrize("agent", [Baeuerle(), Baeuerle(deviation=1.1, half_angle=1.8, reach=40.0, orientation_reach=20.0, torque=2.0)])
def test_baeuerle_turns_to_the_nearer_of_two_directions(agent: Baeuerle):
    one = engine(agents=12)
    where = scattered(one, [3])
    agents, forces, torques = pairs_of(one, where), [], []
    planes = [(complex(*place), complex(*facing)) for place, facing in agents]
    for number, (place, facing) in enumerate(planes):
        near = seen(agents, number, agent.half_angle, agent.reach)
        if not near:
            forces.append(0.0), torques.append(0.0)
            continue
        centre = sum(planes[k][0] for k in near) / len(near) - place
        others = facing + sum(planes[k][1] for k in seen(agents, number, agent.half_angle, agent.orientation_reach))
        choices = [cmath.phase(centre) + agent.deviation, cmath.phase(centre) - agent.deviation]
        wanted = min(choices, key=lambda angle: abs(math.remainder(angle - cmath.phase(others), 2 * math.pi)))
        forces.append(1.0), torques.append(agent.torque * math.sin(wanted - cmath.phase(facing)))
    found = agent.controls(one, where, where)
    assert found.force[0, 0].tolist() == forces
    assert found.torque[0, 0].tolist() == pytest.approx(torques, abs=1e-9)


def force_by_loops(agent: Lymburn, agents: Any, speeds: list[float], number: int, predator: list[float]) -> list[float]:
    """Component by component."""
    place, facing = agents[number]
    found = []
    for axis in range(len(place)):
        own, total = speeds[number] * facing[axis], 0.0
        for k in seen(agents, number, math.pi, agent.reach):
            other, heading = agents[k]
            total += agent.alignment * (speeds[k] * heading[axis] - own)
            total += agent.repulsion * agent.length * (place[axis] - other[axis]) / math.dist(place, other) ** 2
        total -= agent.homing * place[axis] / agent.length + agent.friction * own * (speeds[number] - 1)
        distance = math.dist(place, predator)
        if agent.predator_reach is None or distance <= agent.predator_reach:
            total += agent.predation * agent.length * (place[axis] - predator[axis]) / distance**2
        found.append(total)
    return found


@pytest.mark.parametrize("dimensions", [2, 3])
@pytest.mark.parametrize("reaches", [(None, None), (25.0, 30.0)])
def test_lymburn_swims_by_the_sum_of_its_forces(dimensions: int, reaches: tuple[float | None, float | None]):
    one = engine(agents=8, num_dimensions=dimensions)
    agent = Lymburn(predation=0.7, predator=(10.0, 5.0), reach=reaches[0], predator_reach=reaches[1], fastest=2.0)
    before, where = scattered(one, [3]), scattered(one, [3], 1)
    speeds = [0.2 * number for number in range(8)]
    before = replace(before, memory={SPEEDS: torch.tensor(speeds, dtype=torch.float64).view(1, 1, 8)})
    agents, found = pairs_of(one, where), agent.controls(one, before, where)
    for number, (_, facing) in enumerate(agents):
        force = force_by_loops(agent, agents, speeds, number, [10.0, 5.0, 0.0][:dimensions])
        velocity = [speeds[number] * e + 0.1 * f for e, f in zip(facing, force)]
        size = math.hypot(*velocity)
        assert found.force[0, 0, number].item() == pytest.approx(min(size, 2.0))
        assert found.directors[:, 0, 0, number].tolist() == pytest.approx([one / size for one in velocity])
    assert torch.equal(where.memory[SPEEDS], found.force)


def test_friction_brings_lymburn_to_the_swim_speed():
    one, agent = engine(agents=1, kelvin=0.0), Lymburn(homing=0.0, fastest=3.0)
    for speed in (0.2, 2.5):
        start = replace(state([[0, 0]], [[1, 0]]), memory={SPEEDS: torch.full((1, 1, 1), speed, dtype=torch.float64)})
        assert live(one, agent, start, 200, 1.0).memory[SPEEDS].item() == pytest.approx(1.0)


def test_the_predator_goes_in_a_circle():
    agent = Lymburn(predator=(10.0, 0.0), predator_period=8.0)
    assert agent._where(2.0) == pytest.approx((0.0, 10.0))
    assert agent._where(8012.0) == pytest.approx((-10.0, 0.0))


def test_a_home_has_two_or_three_coordinates():
    with pytest.raises(ConfigError, match=r"home must have two or three coordinates, or none for the middle, got \[1.0\]"):
        Lymburn(home=(1.0,))


def test_baeuerle_is_refused_in_space():
    one = engine(num_dimensions=3)
    where = scattered(one, [0])
    with pytest.raises(ConfigError, match="baeuerle works in 2 dimensions, got 3"):
        Baeuerle().controls(one, where, where)


def test_a_constant_agent_does_what_it_is_told():
    one = engine()
    where = scattered(one, [0])
    found = Constant(force=0.5, torque=-0.25).controls(one, where, where)
    assert found.force.tolist() == [[[0.5] * 3]] and found.torque.tolist() == [[[-0.25] * 3]] and found.directors is None


def test_only_agents_for_which_the_concentration_falls_tumble_by_its_rate():
    one = engine(agents=3)
    before, after = (state([[x, 0], [0, y], [7, 7]], [[1, 0]] * 3) for x, y in ((10, 20), (11, 19)))
    found = RunAndTumble(rate=NEVER, falling_rate=ALWAYS).controls(one, before, after)
    assert (found.directors != after.directors).any(0).tolist() == [[[True, False, False]]]
    found = RunAndTumble(rate=ALWAYS, falling_rate=NEVER).controls(one, before, after)
    assert (found.directors != after.directors).any(0).tolist() == [[[False, True, True]]]


@pytest.mark.parametrize("dimensions", [2, 3])
def test_tumbles_come_by_their_rate_and_lead_anywhere(dimensions: int):
    one = engine(environments=20_000, agents=1, num_dimensions=dimensions, slice_seconds=0.5)
    where = scattered(one, [0])
    where.directors = torch.zeros_like(where.directors)
    where.directors[-1] = 1.0
    found = RunAndTumble(rate=0.7).controls(one, where, where).directors
    tumbled = (found != where.directors).any(0)
    expected = 1 - math.exp(-0.7 * 0.5)
    assert abs(tumbled.double().mean().item() - expected) < 4 * math.sqrt(expected * (1 - expected) / 20_000)
    drawn = found[:, tumbled]
    assert torch.allclose(drawn.square().sum(0), torch.ones_like(drawn[0]))
    assert torch.allclose(drawn.mean(1), torch.zeros(dimensions, dtype=torch.float64), atol=0.04)
    assert torch.allclose(drawn.square().mean(1), torch.full((dimensions,), 1 / dimensions, dtype=torch.float64), atol=0.03)


def test_tumbles_follow_from_the_slice_alone():
    one = engine(agents=5)
    where = scattered(one, [0])
    again = [RunAndTumble(rate=ALWAYS).controls(one, where, where).directors for _ in range(2)]
    one.slices = 1
    assert torch.equal(*again)
    assert not torch.equal(again[0], RunAndTumble(rate=ALWAYS).controls(one, where, where).directors)
    assert set(one.keys) >= {noise.CHOICES}


@pytest.mark.parametrize(
    "agent",
    [
        Constant(),
        RunAndTumble(field=Concentration(decay="exponential", length=20.0), rate=3.0, falling_rate=8.0),
        Lavergne(half_angle=1.0),
        Baeuerle(deviation=1.0, half_angle=2.0, reach=30.0),
        Lymburn(reach=30.0, predation=0.5, predator=(5.0, 0.0), predator_period=0.7, predator_reach=25.0),
    ],
)
@pytest.mark.parametrize("agents", [1, 7, 10])
def test_what_is_done_does_not_depend_on_who_else_is_in_the_batch(agent: Any, agents: int):
    def numbers(*world: Any) -> dict[str, torch.Tensor]:
        found = agent.controls(*world)
        directors = {} if found.directors is None else {"directors": found.directors.movedim(0, -1)}
        return {"force": found.force, "torque": found.torque, **directors}

    alone_as_in_a_batch(numbers, agents=agents, rod=ROD, box=90.0)


# -- what comes of it -----------------------------------------------------------------------------------------------------------


def crowd(**more: Any) -> Engine:
    """Of agents that do not touch each other, so that what comes is of their rule."""
    one = engine(environments=16, agents=20, slice_seconds=0.5, **more)
    one.surroundings.mobility.depth.zero_()
    return one


def spread(where: State) -> torch.Tensor:
    """The mean distance of agents from the middle of each swarm (E,)."""
    return (where.positions - where.positions.mean(-1, keepdim=True)).square().sum(0).sqrt().mean(-1)[0]


def swirl(where: State) -> torch.Tensor:
    """How much each swarm (E,) goes round its middle: 1, all one way along circles."""
    x, y = (where.positions - where.positions.mean(-1, keepdim=True))[:, 0]
    return ((x * where.directors[1, 0] - y * where.directors[0, 0]) / (x.square() + y.square()).sqrt()).mean(-1).abs()


def less(first: torch.Tensor, second: torch.Tensor) -> None:
    """The mean of the first is below that of the second by more than 3 standard errors of their difference."""
    error = math.sqrt(first.var().item() / len(first) + second.var().item() / len(second))
    assert first.mean().item() < second.mean().item() - 3 * error


def test_run_and_tumble_climbs_the_gradient():
    """Against one whose tumbles know nothing of it."""
    distances = []
    for falling_rate in (1.0, 0.2):
        one = engine(environments=400, agents=1, slice_seconds=0.2, num_substeps=2)
        final = live(one, RunAndTumble(rate=0.2, falling_rate=falling_rate), one.start(60.0), 300, speed=5.0)
        distances.append(final.positions[:, 0, :, 0].square().sum(0).sqrt())
    less(*distances)
    assert distances[0].mean() < 40.0


def test_lavergne_groups_where_agents_that_always_swim_disperse():
    one, other = crowd(), crowd()
    start = spread(one.start(30.0))
    group = spread(live(one, Lavergne(threshold=0.1), one.start(30.0), 300, speed=2.0))
    less(group, start)
    less(2.0 * start, spread(live(other, Constant(), other.start(30.0), 300, speed=2.0)))


def test_baeuerle_swirls_at_a_deviation_and_clusters_without():
    found = {}
    for deviation in (0.0, 1.2):
        one = crowd()
        found[deviation] = live(one, Baeuerle(deviation=deviation, orientation_reach=6.0), one.start(30.0), 300, speed=2.0, turns=1.0)
    less(spread(found[0.0]), spread(found[1.2]))
    assert swirl(found[1.2]).mean() > 0.6
    assert swirl(found[0.0]).mean() < 0.3


def test_lymburn_flees_its_predator():
    distances = []
    for predation in (5.0, 0.0):
        one = crowd()
        final = live(one, Lymburn(predation=predation, predator=(10.0, 0.0)), one.start(20.0), 100, speed=2.0)
        distances.append((final.positions[0] - 10.0).square().add(final.positions[1].square()).sqrt().amin(-1)[0])
    less(distances[1], distances[0])
