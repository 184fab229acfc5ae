"""What agents are rewarded for, against slow loops over plain numbers."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from swarm_worlds import ROD, alone_as_in_a_batch, beads_of, engine, pairs_of, scattered, state

from workers.errors import ConfigError
from workers.swarm.concentration import Decay
from workers.swarm.contacts import Rod
from workers.swarm.engine import Engine, State
from workers.swarm.tasks.gradient_sensing import GradientSensing
from workers.swarm.tasks.multi_tasking import MultiTasking
from workers.swarm.tasks.rotate_rod import RotateRod
from workers.swarm.tasks.species_search import SpeciesSearch

THIRD = Rod(num_beads=7)


def turned(one: Engine, angles: list[float], task: RotateRod) -> list[torch.Tensor]:
    """Rewards (N,) of the slices between these angles of the rod, with what is remembered as in the arena."""
    before, found = replace(scattered(one, [3]), rods=torch.tensor([[angles[0]]], dtype=torch.float64)), []
    for angle in angles[1:]:
        after = replace(before, rods=torch.full_like(before.rods, angle), memory=dict(before.memory))
        found.append(task.reward(one, before, after)[0, 0])
        before = replace(after, memory=dict(after.memory))
    return found


def share_by_loops(one: Engine, where: State, partition: str) -> list[float]:
    """Of |sum over beads of (lever) n x grad 1 / r^12|, agent by agent and bead by bead."""
    agents, beads, angle = [place for place, _ in pairs_of(one, where)], beads_of(one, where), where.rods[0, 0].item()
    sizes = []
    for x, y in agents:
        total = 0.0
        for lever, (u, v) in zip(one.rod.levers(), beads):
            fourteenth = math.hypot(x - u, y - v) ** 14
            fx, fy = -12 * (x - u) / fourteenth, -12 * (y - v) / fourteenth
            total += (lever if partition == "lever" else 1.0) * (math.cos(angle) * fy - math.sin(angle) * fx)
        sizes.append(abs(total))
    return [size / sum(sizes) for size in sizes]


@pytest.mark.parametrize("sensed", ["agents", "rod"])
@pytest.mark.parametrize("avoid", [False, True])
def test_a_way_to_others_is_rewarded_or_one_away_from_them(sensed: str, avoid: bool):
    one = engine(agents=6, rod=ROD)
    before, after = scattered(one, [3]), scattered(one, [3], 1)

    def total(where: State, number: int) -> float:
        agents = [place for place, _ in pairs_of(one, where)]
        others = agents[:number] + agents[number + 1 :] if sensed == "agents" else beads_of(one, where)
        return sum(30.0 / math.dist(agents[number], other) for other in others)

    expected = [max(0.0, (-5.0 if avoid else 5.0) * (total(after, k) - total(before, k))) for k in range(6)]
    task = SpeciesSearch(sensed=sensed, avoid=avoid, scale=5.0, field=Decay(length=30.0))
    found = task.reward(one, before, after)[0, 0]
    assert 0 < found.count_nonzero() < 6
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_who_is_alone_finds_nobody():
    one = engine(agents=1)
    assert SpeciesSearch().reward(one, scattered(one, [1]), scattered(one, [1], 1)).tolist() == [[[0.0]]]


@pytest.mark.parametrize("partition", ["torque", "lever"])
def test_shares_of_the_torque_are_those_of_a_loop_over_beads(partition: str):
    one = engine(agents=6, rod=ROD)
    where = scattered(one, [3])
    found = RotateRod(partition=partition)._shares(one, where)[0, 0]
    assert found.tolist() == pytest.approx(share_by_loops(one, where, partition), rel=1e-9)
    assert found.sum().item() == pytest.approx(1.0)


def pushing(positions: list[list[float]], **more: Any) -> tuple[Engine, State]:
    """Agents about a rod along x."""
    return engine(agents=len(positions), rod=THIRD, **more), state(positions, [[0.0, 1.0]] * len(positions), rod=0.0)


def test_only_with_levers_an_agent_at_the_tip_has_more_of_the_reward_than_one_near_the_middle():
    step = THIRD.length / THIRD.num_beads
    one, where = pushing([[3 * step, 5.0], [step, 5.0]])
    tip, middle = RotateRod(partition="lever")._shares(one, where)[0, 0].tolist()
    assert tip / middle == pytest.approx(3.0, rel=1e-3)
    tip, middle = RotateRod(partition="torque")._shares(one, where)[0, 0].tolist()
    assert tip / middle == pytest.approx(1.0, rel=1e-3)


def test_agents_on_the_line_of_the_rod_share_equally():
    one, where = pushing([[70.0, 0.0], [90.0, 0.0]])
    assert RotateRod()._shares(one, where)[0, 0].tolist() == [0.5, 0.5]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shares_are_numbers_however_far_agents_are_and_on_a_bead(dtype: torch.dtype):
    for x in (0.0, 1e-20, 1e5):
        one, where = pushing([[x, x], [2 * x, x]], dtype=dtype)
        where = State(where.positions.to(dtype), where.directors.to(dtype), where.rods.to(dtype))
        assert RotateRod()._shares(one, where).sum(-1).item() == pytest.approx(1.0)


def test_the_reward_is_the_mean_velocity_in_degrees_of_the_slices_there_were():
    one = engine(agents=4, rod=ROD, slice_seconds=0.5)
    angles = [0.0, 0.1, 0.4, 0.3, 0.9]
    velocities = [math.degrees(b - a) / 0.5 for a, b in itertools.pairwise(angles)]
    found = turned(one, angles, RotateRod(partition="equal", velocity_history=3, scale=8.0))
    for number, rewards in enumerate(found, 1):
        kept = velocities[max(0, number - 3) : number]
        assert rewards.tolist() == pytest.approx([8.0 * sum(kept) / len(kept) / 4] * 4)


def test_a_turn_across_a_whole_one_counts_as_any_other():
    one = engine(agents=1, rod=ROD)
    start = 2 * math.pi
    first, second = (turned(one, [start + a, start + b], RotateRod())[0].item() for a, b in ((-0.1, 0.1), (0.5, 0.5 + 7.0)))
    assert first == pytest.approx(math.degrees(0.2) / one.slice_seconds)
    assert second == pytest.approx(math.degrees(7.0) / one.slice_seconds)


def test_a_direction_is_rewarded_and_the_other_punished():
    one = engine(agents=1, rod=ROD)
    found = {
        direction: [turned(one, angles, RotateRod(direction=direction))[0].item() for angles in ([0, 1], [0, -1])]
        for direction in ("ccw", "cw", "any")
    }
    size = math.degrees(1) / one.slice_seconds
    assert found == {name: pytest.approx(values) for name, values in dict(ccw=[size, -size], cw=[-size, size], any=[size, size]).items()}


def test_two_tasks_give_the_sum_of_what_each_gives():
    one = engine(agents=4, rod=ROD)
    before, after = scattered(one, [3]), scattered(one, [3], 1)
    parts = GradientSensing(), SpeciesSearch(sensed="rod"), RotateRod()
    nested = MultiTasking(first=MultiTasking(first=parts[0], second=parts[1]), second=parts[2])
    assert torch.allclose(nested.reward(one, before, after), sum(part.reward(one, before, after) for part in parts))
    assert nested.needs_rod and nested.dimensions == (2,)


def test_two_tasks_of_one_kind_remember_a_slice_once():
    one, angles = engine(agents=3, rod=ROD), [0.0, 0.1, 0.4, 0.3]
    twice = MultiTasking(first=RotateRod(velocity_history=2), second=RotateRod(velocity_history=2))
    for both, single in zip(turned(one, angles, twice), turned(one, angles, RotateRod(velocity_history=2))):
        assert torch.equal(both, 2 * single)


def test_a_rod_is_only_turned_where_there_is_one():
    one = engine()
    for task in (RotateRod(), MultiTasking(second=RotateRod())):
        with pytest.raises(ConfigError, match="rotate_rod needs a rod"):
            task.require(2, rod=False)
    with pytest.raises(ConfigError, match="rotate_rod needs a rod"):
        RotateRod().reward(one, scattered(one, [0]), scattered(one, [0]))


@pytest.mark.parametrize(
    "task",
    [
        SpeciesSearch(field=Decay(decay="exponential", length=30.0)),
        SpeciesSearch(sensed="rod", avoid=True),
        *(RotateRod(partition=partition, velocity_history=2) for partition in ("equal", "torque", "lever")),
        RotateRod(velocity_history=100),
        MultiTasking(),
    ],
)
@pytest.mark.parametrize("agents", [1, 7, 10])
def test_rewards_do_not_depend_on_who_else_is_in_the_batch(task: Any, agents: int):
    alone_as_in_a_batch(lambda *world: {"reward": task.reward(*world)}, agents=agents, rod=ROD, box=90.0)
