"""Where agents begin: drawn until none overlaps another, a rod or a wall, or as given, which is checked for the same."""

import math
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.swarm import noise
from workers.swarm.sums import squared
from workers.swarm.turning import on_sphere

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State

# P policies, E environments, N agents; D dimensions; M environments that are not done

MAX_TRIES = 2000
# tries after which all agents of an environment are drawn anew: those that stood well may have left no place
ANEW = 100


def drawn(engine: "Engine", radius: float) -> "State":
    """Uniform in a disc (in space a ball) about the origin, with directors anywhere; those that overlap are drawn anew."""
    import torch

    rods = _rods(engine)
    keys = engine.keys[noise.STARTS].flatten(0, 1)
    positions, directors = _draw(engine, keys, 0, radius)
    left = torch.arange(len(keys), device=keys.device)
    for number in range(1, MAX_TRIES + 1):
        bad = _overlapping(engine, positions[:, left], directors[:, left], rods, left)
        again = bad.any(-1)
        left, bad = left[again], bad[again]
        if not len(left):
            break
        if number == MAX_TRIES:
            raise _no_room(engine, radius, int(left[0]), int(bad[0].sum()))
        bad = bad | (number % ANEW == 0)
        for values, new in zip((positions, directors), _draw(engine, keys[left], number, radius)):
            values[:, left] = torch.where(bad, new, values[:, left])
    return _state(engine, positions.view(-1, *engine.shape), directors.view(-1, *engine.shape))


def directors(engine: "Engine") -> "Tensor":
    """Anywhere (D, P, E, N)."""
    return _draw(engine, engine.keys[noise.STARTS].flatten(0, 1), 0, 1.0)[1].view(-1, *engine.shape)


def given(engine: "Engine", positions: "Tensor", directors: "Tensor") -> "State":
    """At (D, P, E, N), or (D, N) for all environments; directors of length 1. ConfigError where agents overlap, naming them."""
    import torch

    positions, directors = (
        _fitting(engine, torch.as_tensor(values), name) for values, name in ((positions, "positions"), (directors, "directors"))
    )
    lengths = squared(directors).sqrt()
    if bool(((lengths - 1.0).abs() > 1e-3).any()):
        raise ConfigError(f"directors must have length 1, got lengths from {float(lengths.min()):g} to {float(lengths.max()):g}")
    flat, facing = positions.flatten(1, 2), directors.flatten(1, 2)
    pairs, others = engine.surroundings.overlaps(flat, facing, *_of(engine, _rods(engine), torch.arange(flat.shape[1], device=flat.device)))
    if bool(pairs.any()):
        environment, number = (int(value) for value in torch.nonzero(pairs)[0])
        first, second = (int(one[number]) for one in (engine.surroundings.pairs.first, engine.surroundings.pairs.second))
        apart = float(squared(engine.surroundings.pairs.apart(flat[:, environment]))[number].sqrt())
        raise ConfigError(
            f"agents {first} and {second} {_where(engine, environment)} overlap: their centres are {apart:.4g} um apart; "
            f"agents of radius {engine.bodies[environment // engine.shape[1]].radius:g} um must not touch at the start"
        )
    if bool(others.any()):
        environment, agent = (int(value) for value in torch.nonzero(others)[0])
        place = ", ".join(f"{float(value):.4g}" for value in flat[:, environment, agent])
        raise ConfigError(f"agent {agent} {_where(engine, environment)} at ({place}) um overlaps the rod or a wall; begin elsewhere")
    return _state(engine, positions, directors / lengths)


def _draw(engine: "Engine", keys: "Tensor", number: int, radius: float) -> "tuple[Tensor, Tensor]":
    """The positions and directors (D, M, N) of a try, for keys (M, N); after some slices others than at the beginning."""
    import torch

    number += engine.slices * (MAX_TRIES + 1)
    u, v, w, z = noise.uniforms(keys, 2 * number, 4, engine.dtype)
    angle, facing = 2.0 * math.pi * v, 2.0 * math.pi * w
    positions, directors = (torch.stack([one.cos(), one.sin()]) for one in (angle, facing))
    if engine.num_dimensions == 2:
        return (radius * u.sqrt()) * positions, directors
    heights = noise.uniforms(keys, 2 * number + 1, 1, engine.dtype)[0]
    # the third root, but not pow, of which torch rounds the last numbers of a tensor otherwise than the rest
    distance = radius * (u.log() / 3.0).exp()
    return distance * on_sphere(positions, 2.0 * z - 1.0), on_sphere(directors, 2.0 * heights - 1.0)


def _overlapping(engine: "Engine", positions: "Tensor", directors: "Tensor", rods: "Tensor | None", numbers: "Tensor") -> "Tensor":
    """Which agents (M, N) of environments `numbers` (M,) overlap a rod, a wall, or an agent of a lower number, which stays."""
    import torch

    pairs, others = engine.surroundings.overlaps(positions, directors, *_of(engine, rods, numbers))
    later = torch.zeros_like(others, dtype=torch.int32)
    later.index_add_(-1, engine.surroundings.pairs.second, pairs.to(torch.int32))
    return others | (later > 0)


def _of(engine: "Engine", rods: "Tensor | None", numbers: "Tensor") -> "tuple[Tensor | None, Tensor]":
    """The rods (M,) and the numbers of the policies (M,) of environments."""
    return None if rods is None else rods.flatten()[numbers], numbers // engine.shape[1]


def _rods(engine: "Engine") -> "Tensor | None":
    import torch

    if engine.rod is None:
        return None
    angle = math.remainder(engine.rod.start_angle, 2.0 * math.pi)
    return torch.full(engine.shape[:2], angle, dtype=torch.float64, device=engine.device)


def _state(engine: "Engine", positions: "Tensor", directors: "Tensor") -> "State":
    from workers.swarm.engine import State

    return State(positions, directors, _rods(engine))


def _fitting(engine: "Engine", values: "Tensor", name: str) -> "Tensor":
    """For all environments, in the engine's type."""
    num_dimensions, num_agents = engine.num_dimensions, engine.shape[2]
    if values.shape == (num_dimensions, num_agents):
        values = values[:, None, None].expand(-1, *engine.shape)
    if values.shape != (num_dimensions, *engine.shape):
        raise ConfigError(
            f"{name} must have the shape {(num_dimensions, *engine.shape)} (dimensions, policies, environments, agents), "
            f"or {(num_dimensions, num_agents)} for all environments, got {tuple(values.shape)}"
        )
    return values.to(engine.device, engine.dtype).contiguous()


def _where(engine: "Engine", environment: int) -> str:
    return f"of environment {environment % engine.shape[1]} of policy {environment // engine.shape[1]}"


def _no_room(engine: "Engine", radius: float, environment: int, num_bad: int) -> ConfigError:
    """For an environment in which so many agents still overlap."""
    own, num, power = engine.bodies[environment // engine.shape[1]].radius, engine.shape[2], engine.num_dimensions
    share = num * (own / radius) ** power if radius > 0.0 else math.inf
    return ConfigError(
        f"no room for {num} agents of radius {own:g} um within {radius:g} um: after {MAX_TRIES} tries {num_bad} of them still "
        f"overlap others, the rod or a wall {_where(engine, environment)}; agents fill {share:.0%} of it, and where they fill more than "
        f"about {'40' if power == 2 else '25'}% chance finds no places: take fewer or smaller agents or a larger radius"
    )
