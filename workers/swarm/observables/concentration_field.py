"""How the concentration of a source's field changes, or how high it is, where an agent is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm.concentration import Concentration
from workers.swarm.parts import SwarmObservable
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class ConcentrationField(SwarmObservable):
    """scale (c(r_t) - c(r_(t-1))) of the field of a source (2307.00994, 2404.01999), one number; `absolute`: scale c(r_t)."""

    field: Concentration = Concentration()
    scale: float = setting(10.0, above=0)
    absolute: bool = setting(False, help="how high the concentration is, in place of its change since the last slice")

    def observe(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N, 1)."""
        seen = self.field.at(after.positions) if self.absolute else self.field.change(before.positions, after.positions)
        return (self.scale * seen)[..., None]
