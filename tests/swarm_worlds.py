"""Small swarms for tests of their parts: engines, states that follow from a policy's number, and a loop as the arena's."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from workers.swarm.contacts import Rod
from workers.swarm.engine import Body, Engine, State
from workers.swarm.friction import sphere
from workers.swarm.parts import ClassicalAgent

VISCOSITY = 8.9e-4
ROD = Rod()
BATCH = list(range(17))
# of which the policy under test is the last, the first and one in the middle
SOME = ([4], [4, 9, 11], [2, 4, 7], [0, 1, 4], BATCH)


def engine(seeds: Sequence[int] = (0,), *, environments: int = 1, agents: int = 3, kelvin: float = 300.0, **more: Any) -> Engine:
    """Of policies whose agents' radii follow from their seeds."""
    radii = [1.0 + 0.25 * (seed % 5) for seed in seeds]
    bodies = [Body(radius=r, friction=sphere(r, VISCOSITY), temperature=kelvin, contact_temperature=300.0) for r in radii]
    settings = {"slice_seconds": 0.1, "num_substeps": 10, "dtype": torch.float64} | more
    return Engine(bodies, seeds, num_environments=environments, num_agents=agents, **settings)


def state(positions: Any, directors: Any, rod: float | None = None) -> State:
    """Of one policy and one environment, from positions and directors (N, D)."""
    places, facing = (torch.tensor(values, dtype=torch.float64).T[:, None, None].contiguous() for values in (positions, directors))
    return State(places, facing, None if rod is None else torch.tensor([[rod]], dtype=torch.float64))


def scattered(one: Engine, seeds: Sequence[int], slice_number: int = 0) -> State:
    """Anywhere within some 20 um, each policy by its own number."""
    found = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(1000 * seed + slice_number)
        shape = (one.num_dimensions, *one.shape[1:])
        positions = 20.0 * torch.randn(shape, generator=generator, dtype=one.dtype)
        directors = torch.randn(shape, generator=generator, dtype=one.dtype)
        rods = 9.0 * torch.randn(one.shape[1], generator=generator, dtype=one.dtype)
        found.append((positions, directors / directors.square().sum(0).sqrt(), rods))
    positions, directors, rods = zip(*found)
    return State(torch.stack(positions, 1), torch.stack(directors, 1), None if one.rod is None else torch.stack(rods))


def alone_as_in_a_batch(numbers: Callable[[Engine, State, State], "dict[str, Tensor]"], **more: Any) -> None:
    """Numbers (P, ...) of policy 4 are bitwise the same whoever else is there, for three slices with what is remembered."""
    kept = []
    for seeds in SOME:
        one = engine(seeds, **{"environments": 3, "agents": 7, "dtype": torch.float32} | more)
        place, before, found = seeds.index(4), scattered(one, seeds), []
        for number in range(1, 4):
            after = replace(scattered(one, seeds, number), memory=dict(before.memory))
            found += [value[place] for value in (numbers(one, before, after) | after.memory).values()]
            one.slices += 1
            before = replace(after, memory=dict(after.memory))
        kept.append(found)
    for other in kept[1:]:
        for alone, beside in zip(kept[0], other, strict=True):
            assert torch.equal(alone, beside)


def pairs_of(one: Engine, where: State) -> list[tuple[list[float], list[float]]]:
    """Positions and directors of the agents of the first environment of the first policy, as plain numbers."""
    return list(zip(where.positions[:, 0, 0].T.tolist(), where.directors[:, 0, 0].T.tolist()))


def beads_of(one: Engine, where: State) -> list[list[float]]:
    """Places of the beads of the first rod."""
    assert one.rod is not None
    assert where.rods is not None
    angle = where.rods[0, 0].item()
    return [[lever * math.cos(angle), lever * math.sin(angle)] for lever in one.rod.levers()]


def live(one: Engine, agent: ClassicalAgent, start: State, num_slices: int, speed: float, turns: float = 0.0) -> State:
    """The state after slices of what an agent does; a share of 1 swims at `speed` um / s and turns by `turns` rad / s."""
    now = before = start
    for _ in range(num_slices):
        controls = agent.controls(one, before, now)
        if controls.directors is not None:
            now.directors = controls.directors
        before = replace(now, memory=dict(now.memory))
        one.advance(now, controls.force * speed * one.along, controls.torque * turns * one.rotation)
    return now
