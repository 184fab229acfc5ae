"""Rewards a way up the gradient of a source's field."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm.concentration import Concentration
from workers.swarm.parts import SwarmTask
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class GradientSensing(SwarmTask):
    """max(0, scale (c(r_t) - c(r_(t-1)))) of the field of a source (2307.00994, 2404.01999)."""

    field: Concentration = Concentration()
    scale: float = setting(10.0, above=0)

    def reward(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N)."""
        return (self.scale * self.field.change(before.positions, after.positions)).clamp(min=0.0)
