"""Rewards a way towards other particles, or away from them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import sight
from workers.swarm.concentration import Decay
from workers.swarm.parts import SwarmTask
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class SpeciesSearch(SwarmTask):
    """scale max(0, s_t - s_(t-1)), where s is the sum over all other agents, or over all beads of the rod, of `field` (2307.00994).

    `avoid`: scale max(0, s_(t-1) - s_t).
    """

    sensed: str = setting("agents", choices=sight.SPECIES)
    field: Decay = Decay()
    scale: float = setting(10.0, above=0)
    avoid: bool = setting(False, help="the way away from them is rewarded")

    @property
    def needs_rod(self) -> bool:
        """Where it is sensed."""
        return self.sensed == sight.ROD

    def reward(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N)."""
        change = sight.smelt(engine, after, self.sensed, self.field) - sight.smelt(engine, before, self.sensed, self.field)
        return ((-self.scale if self.avoid else self.scale) * change).clamp(min=0.0)
