"""How much of its field of view others fill, cone by cone."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import sight
from workers.swarm.parts import SwarmObservable
from workers.swarm.sums import dot
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State

# C cones; M objects: other agents or beads


@dataclass(frozen=True, kw_only=True)
class VisionCones(SwarmObservable):
    """In each cone the sum over what is seen there of min(1, 2 r / d), of its radius r and its distance d (2307.00994).

    The cones share the angle from -half_angle (at the right) to half_angle (at the left) about the director equally. What is on a border
    of two is in that at the left; what is at half_angle is in the last. Nothing hides another, and what is at an agent's very centre is
    not seen. Other agents are seen at their nearest image in a periodic box.
    """

    sees: str = setting("agents", choices=("agents", "rod", "both"))
    num_cones: int = setting(5, low=1)
    half_angle: float = setting(1.4, above=0, high=math.pi, unit="rad")
    reach: float | None = setting(None, above=0, unit="um", help="how far agents see; null: any distance")

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Cones are parts of an angle in a plane."""
        return (2,)

    @property
    def needs_rod(self) -> bool:
        """Where it is seen."""
        return self.sees != "agents"

    def observe(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N, channels C): all cones of the agents from right to left, then all of the beads of the rod. ConfigError in space."""
        import torch

        self.require(engine.num_dimensions, rod=engine.rod is not None)
        channels = []
        if self.sees != "rod":
            channels += self._channel(sight.to_agents(engine, after), after, engine.radius[..., None], sight.itself(engine))
        if self.sees != "agents" and engine.rod is not None:
            channels += self._channel(
                sight.to_beads(engine, after), after, torch.full_like(engine.radius[..., None], engine.rod.bead_radius)
            )
        return torch.stack(channels, -1)

    def _channel(self, apart: "Tensor", state: "State", radius: "Tensor", hidden: "Tensor | None" = None) -> "list[Tensor]":
        """C tensors (P, E, N), of objects at `apart` (2, P, E, N, M)."""
        square = dot(apart, apart)
        seen = (2.0 * radius * square.rsqrt()).clamp(max=1.0)
        seen = seen.masked_fill(square == 0.0 if hidden is None else hidden | (square == 0.0), 0.0)
        if self.reach is not None:
            seen = seen.masked_fill(square > self.reach**2, 0.0)
        cones = self._cones(apart, state.directors[..., None])
        return [(seen * (cones == number)).sum(-1) for number in range(self.num_cones)]

    def _cones(self, apart: "Tensor", director: "Tensor") -> "Tensor":
        """In which cone (P, E, N, M) each object is; -1 or C: in none.

        An angle is past a border where its vector is at the left of the border's: exact sums and products, and no arc.
        """
        import torch

        ahead, left = dot(apart, director), director[0] * apart[1] - director[1] * apart[0]
        width, at_left = 2.0 * self.half_angle / self.num_cones, left >= 0.0
        cones = torch.full_like(left, -1, dtype=torch.int64)
        for number in range(self.num_cones):
            # of twice its number, so that a border straight ahead is at exactly 0
            border = 0.5 * width * (2 * number - self.num_cones)
            past = left * math.cos(border) - ahead * math.sin(border) >= 0.0
            cones += (at_left & past) if border >= 0.0 else (at_left | past)
        if self.half_angle < math.pi:
            cones += at_left & (left * math.cos(self.half_angle) - ahead * math.sin(self.half_angle) > 0.0)
        return cones
