"""Rewards two things at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm.parts import SwarmPart, SwarmTask
from workers.swarm.tasks.gradient_sensing import GradientSensing
from workers.swarm.tasks.species_search import SpeciesSearch

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class MultiTasking(SwarmTask):
    """The sum of the rewards of both, of which one may be another of this kind."""

    first: SwarmTask = GradientSensing()
    second: SwarmTask = SpeciesSearch()

    def parts(self) -> tuple[SwarmPart, ...]:
        """Both."""
        return self.first, self.second

    def reward(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N)."""
        return self.first.reward(engine, before, after) + self.second.reward(engine, before, after)
