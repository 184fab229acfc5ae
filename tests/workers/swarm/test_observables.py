"""What agents see, against slow loops over plain numbers."""

import math
from typing import Any

import pytest
import torch
from swarm_worlds import ROD, alone_as_in_a_batch, beads_of, engine, pairs_of, scattered, state

from workers.errors import ConfigError
from workers.swarm.concentration import Concentration, Decay
from workers.swarm.observables.concentration_field import ConcentrationField
from workers.swarm.observables.director import Director
from workers.swarm.observables.multi_sensing import MultiSensing
from workers.swarm.observables.particle_sensing import ParticleSensing
from workers.swarm.observables.position import Position
from workers.swarm.observables.vision_cones import VisionCones

DECAYS = {
    "inverse": lambda d, length: length / d,
    "inverse_square": lambda d, length: (length / d) ** 2,
    "exponential": lambda d, length: math.exp(-d / length),
}


def loop_of_cones(one: Any, where: Any, cones: VisionCones) -> list[list[float]]:
    """By angles, agent by agent and object by object."""
    agents, found = pairs_of(one, where), []
    species = {"agents": ["agents"], "rod": ["rod"], "both": ["agents", "rod"]}[cones.sees]
    for number, (place, facing) in enumerate(agents):
        seen = []
        for kind in species:
            others = [other for k, (other, _) in enumerate(agents) if k != number] if kind == "agents" else beads_of(one, where)
            radius = one.radius.item() if kind == "agents" else one.rod.bead_radius
            values = [0.0] * cones.num_cones
            for other in others:
                x, y = other[0] - place[0], other[1] - place[1]
                distance = math.hypot(x, y)
                angle = math.remainder(math.atan2(y, x) - math.atan2(facing[1], facing[0]), 2 * math.pi)
                if abs(angle) <= cones.half_angle and (cones.reach is None or distance <= cones.reach):
                    cone = int((angle + cones.half_angle) / (2 * cones.half_angle) * cones.num_cones)
                    values[min(cone, cones.num_cones - 1)] += min(1.0, 2 * radius / distance)
            seen += values
        found.append(seen)
    return found


@pytest.mark.parametrize("half_angle", [0.3, 1.4, math.pi / 2, 2.5, math.pi])
@pytest.mark.parametrize(("num_cones", "reach"), [(1, None), (2, 25.0), (5, None), (6, 12.0)])
def test_cones_are_those_of_the_angles_of_what_is_seen(half_angle: float, num_cones: int, reach: float | None):
    one = engine(agents=12, rod=ROD)
    where = scattered(one, [3])
    cones = VisionCones(sees="both", half_angle=half_angle, num_cones=num_cones, reach=reach)
    expected = torch.tensor(loop_of_cones(one, where, cones), dtype=torch.float64)
    assert expected.count_nonzero()
    assert torch.allclose(cones.observe(one, where, where)[0, 0], expected)


def one_other(x: float, y: float, **settings: Any) -> list[float]:
    """What an agent at the middle that faces along x sees of one other."""
    where = state([[0, 0], [x, y]], [[1, 0], [1, 0]])
    return VisionCones(**settings).observe(engine(agents=2), where, where)[0, 0, 0].tolist()


def test_what_is_exactly_behind_is_not_seen():
    assert one_other(-10, 0) == [0.0] * 5


def test_what_is_exactly_behind_is_seen_all_round():
    assert one_other(-10, 0, num_cones=4, half_angle=math.pi) == pytest.approx([0, 0, 0, 0.2])


def test_what_is_on_the_border_of_two_cones_is_in_the_left_one():
    assert one_other(10, 0, num_cones=2) == pytest.approx([0, 0.2])


def test_cones_go_from_right_to_left():
    assert one_other(10, -8, num_cones=2)[1] == 0 < one_other(10, -8, num_cones=2)[0]


def test_what_touches_fills_its_cone():
    assert one_other(1.5, 0) == [0, 0, 1, 0, 0]


def test_what_is_at_the_very_centre_is_not_seen():
    assert one_other(0, 0, half_angle=math.pi) == [0.0] * 5


def test_who_is_alone_sees_nothing():
    one, where = engine(agents=1), state([[3, 4]], [[0, 1]])
    for observable in (VisionCones(), ParticleSensing(absolute=True)):
        assert not observable.observe(one, where, where).any()


def test_others_are_seen_across_a_periodic_border():
    where = state([[-45, 0], [45, 0]], [[-1, 0], [1, 0]])
    seen = VisionCones().observe(engine(agents=2, box=100.0), where, where)
    assert seen[0, 0].tolist() == [pytest.approx([0, 0, 0.2, 0, 0])] * 2


def test_channels_are_first_all_cones_of_agents_and_then_all_of_the_rod():
    one = engine(agents=3, rod=ROD)
    where = scattered(one, [1])
    both, *each = (VisionCones(sees=sees).observe(one, where, where) for sees in ("both", "agents", "rod"))
    assert torch.equal(both, torch.cat(each, -1))


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("sensed", ["agents", "rod"])
@pytest.mark.parametrize("absolute", [False, True])
def test_what_comes_from_others_is_the_sum_over_them(decay: str, sensed: str, absolute: bool):
    one = engine(agents=5, rod=ROD)
    before, after = scattered(one, [3]), scattered(one, [3], 1)

    def total(where: Any, number: int) -> float:
        agents = [place for place, _ in pairs_of(one, where)]
        others = agents[:number] + agents[number + 1 :] if sensed == "agents" else beads_of(one, where)
        return sum(DECAYS[decay](math.dist(agents[number], other), 30.0) for other in others)

    expected = [7.0 * (total(after, k) - (0.0 if absolute else total(before, k))) for k in range(5)]
    observable = ParticleSensing(sensed=sensed, field=Decay(decay=decay, length=30.0), scale=7.0, absolute=absolute)
    assert observable.observe(one, before, after)[0, 0, :, 0].tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("decay", DECAYS)
def test_the_field_of_a_source_falls_as_what_comes_from_a_particle(decay: str):
    positions = torch.randn(2, 50, dtype=torch.float64)
    square = positions.square().sum(0)
    assert torch.allclose(Concentration(decay=decay).at(positions), Decay(decay=decay).of(square))
    assert Decay(decay=decay).of(torch.zeros(1)).isfinite().all()


def test_a_source_without_a_third_coordinate_is_in_the_plane():
    positions = torch.tensor([[5.0], [0.0], [4.0]])
    sources = [Concentration(source=source, length=5.0) for source in ((2.0, 0.0), (2.0, 0.0, 0.0))]
    assert [one.at(positions).item() for one in sources] == [1.0, 1.0]
    assert Concentration(length=5.0).at(positions[:2]).item() == 1.0


def test_a_position_is_measured_in_lengths_from_the_middle():
    one, where = engine(agents=2, box=100.0), state([[30, -40], [500, 0]], [[1, 0], [0, 1]])
    assert Position(length=10.0).observe(one, where, where)[0, 0].tolist() == [[3, -4], [50, 0]]
    assert Director().observe(one, where, where)[0, 0].tolist() == [[1, 0], [0, 1]]


def test_observables_side_by_side_see_as_each_alone():
    one = engine(agents=4)
    before, after = scattered(one, [3]), scattered(one, [3], 1)
    parts = ConcentrationField(), Position(), VisionCones()
    nested = MultiSensing(first=MultiSensing(first=parts[0], second=parts[1]), second=parts[2])
    assert torch.equal(nested.observe(one, before, after), torch.cat([part.observe(one, before, after) for part in parts], -1))


def test_observables_side_by_side_need_what_each_needs():
    assert not MultiSensing().needs_rod and MultiSensing().dimensions == (2, 3)
    nested = MultiSensing(second=MultiSensing(second=VisionCones(sees="rod")))
    assert nested.needs_rod and nested.dimensions == (2,)


@pytest.mark.parametrize("name", ["nested", "alone"])
def test_cones_are_refused_in_space(name: str):
    observable = {"nested": MultiSensing(first=VisionCones()), "alone": VisionCones()}[name]
    with pytest.raises(ConfigError, match="vision_cones works in 2 dimensions, got 3"):
        observable.require(3, rod=False)
    one = engine(num_dimensions=3)
    where = scattered(one, [0])
    with pytest.raises(ConfigError, match="vision_cones works in 2 dimensions, got 3"):
        observable.observe(one, where, where)


@pytest.mark.parametrize("observable", [VisionCones(sees="rod"), VisionCones(sees="both"), ParticleSensing(sensed="rod")])
def test_a_rod_is_only_seen_where_there_is_one(observable: Any):
    observable.require(2, rod=True)
    with pytest.raises(ConfigError, match="needs a rod"):
        observable.require(2, rod=False)


@pytest.mark.parametrize(
    "observable",
    [
        VisionCones(sees="both"),
        VisionCones(num_cones=4, half_angle=math.pi, reach=20.0),
        *(ParticleSensing(field=Decay(decay=decay, length=30.0), sensed=sensed) for decay in DECAYS for sensed in ("agents", "rod")),
        MultiSensing(first=Position(), second=ConcentrationField()),
    ],
)
@pytest.mark.parametrize("agents", [1, 7, 10])
def test_what_is_seen_does_not_depend_on_who_else_is_in_the_batch(observable: Any, agents: int):
    alone_as_in_a_batch(lambda *world: {"seen": observable.observe(*world)}, agents=agents, rod=ROD, box=90.0)
