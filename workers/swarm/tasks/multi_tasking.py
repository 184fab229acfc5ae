"""Rewards two things at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm.parts import SwarmTask
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

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Of both."""
        return tuple(number for number in self.first.dimensions if number in self.second.dimensions)

    @property
    def needs_rod(self) -> bool:
        """Where one of them does."""
        return self.first.needs_rod or self.second.needs_rod

    def require(self, num_dimensions: int, *, rod: bool) -> None:
        """Each by its own name."""
        self.first.require(num_dimensions, rod=rod)
        self.second.require(num_dimensions, rod=rod)

    def reward(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N)."""
        return self.first.reward(engine, before, after) + self.second.reward(engine, before, after)
