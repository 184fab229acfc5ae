"""How what comes from other particles changes, or how much of it there is, where an agent is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import sight
from workers.swarm.concentration import Decay
from workers.swarm.parts import SwarmObservable
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class ParticleSensing(SwarmObservable):
    """scale (s_t - s_(t-1)), where s is the sum over all other agents, or over all beads of the rod, of `field` (2307.00994).

    `absolute`: scale s_t.
    """

    sensed: str = setting("agents", choices=sight.SPECIES)
    field: Decay = Decay()
    scale: float = setting(10.0, above=0)
    absolute: bool = setting(False, help="how much there is, in place of its change since the last slice")

    @property
    def needs_rod(self) -> bool:
        """Where it is sensed."""
        return self.sensed == sight.ROD

    def observe(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N, 1)."""
        seen = sight.smelt(engine, after, self.sensed, self.field)
        if not self.absolute:
            seen = seen - sight.smelt(engine, before, self.sensed, self.field)
        return (self.scale * seen)[..., None]
