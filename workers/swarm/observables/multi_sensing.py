"""What two observables see, side by side."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm.observables.concentration_field import ConcentrationField
from workers.swarm.observables.director import Director
from workers.swarm.parts import SwarmObservable

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class MultiSensing(SwarmObservable):
    """The numbers of the first, then those of the second, which may be another of this kind."""

    first: SwarmObservable = ConcentrationField()
    second: SwarmObservable = Director()

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

    def observe(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N, I + J)."""
        import torch

        return torch.cat([self.first.observe(engine, before, after), self.second.observe(engine, before, after)], -1)
