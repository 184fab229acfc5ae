"""Where others are, as each agent has them: the vectors to other agents and to the beads of a rod, and who sees whom."""

import math
from typing import TYPE_CHECKING

from workers.swarm.concentration import Decay
from workers.swarm.contacts import rod_direction
from workers.swarm.sums import dot

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State

# D dimensions; P policies; E environments; N agents; B beads; M objects: other agents or beads

# numbers here never depend on who else is in the batch: sums go over the last axis, which is contiguous, and no function is used whose
# last digits depend on the place in memory, as those of atan2, atanh, sigmoid, softplus and powers do on a CPU
AGENTS, ROD = "agents", "rod"
SPECIES = (AGENTS, ROD)


def to_agents(engine: "Engine", state: "State") -> "Tensor":
    """Vectors (D, P, E, N, N) in um from each agent to every agent (last), itself too; to the nearest image in a periodic box."""
    found = state.positions[..., None, :] - state.positions[..., :, None]
    box = engine.box
    return found if box is None else found - box * (found / box).round()


def to_beads(engine: "Engine", state: "State") -> "Tensor":
    """Vectors (2, P, E, N, B) in um from each agent to the beads of the rod, which has no images: contacts with it have none."""
    assert state.rods is not None
    assert engine.levers is not None
    beads = rod_direction(state.rods, engine.dtype)[..., None] * engine.levers
    return beads[..., None, :] - state.positions[..., None]


def itself(engine: "Engine") -> "Tensor":
    """Where an agent is itself (N, N)."""
    import torch

    return torch.eye(engine.shape[2], dtype=torch.bool, device=engine.radius.device)


def smelt(engine: "Engine", state: "State", species: str, decay: Decay) -> "Tensor":
    """The sum (P, E, N) of what comes from all other agents, or from all beads of the rod."""
    if species == ROD:
        apart = to_beads(engine, state)
        return decay.of(dot(apart, apart)).sum(-1)
    apart = to_agents(engine, state)
    return decay.of(dot(apart, apart)).masked_fill(itself(engine), 0.0).sum(-1)


def in_sight(engine: "Engine", state: "State", apart: "Tensor", half_angle: float, reach: float | None) -> "Tensor":
    """Which agents (P, E, N, N) at `apart` (D, P, E, N, N) an agent sees: not itself, within a cone about its director and `reach` um.

    On the border is within.
    """
    square = dot(apart, apart)
    seen = ~itself(engine) & (square > 0.0)
    if reach is not None:
        seen = seen & (square <= reach**2)
    if half_angle < math.pi:
        # the cosine, and exactly 0 at a right angle
        seen = seen & (dot(apart, state.directors[..., None]) >= math.sin(0.5 * math.pi - half_angle) * square.sqrt())
    return seen


def mean_of_seen(vectors: "Tensor", seen: "Tensor") -> "Tensor":
    """(D, P, E, N) of vectors (D, P, E, N, M); 0 where nothing is seen (P, E, N, M)."""
    return (vectors * seen).sum(-1) / seen.sum(-1).clamp(min=1)
