"""What two observables see, side by side."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm.observables.concentration_field import ConcentrationField
from workers.swarm.observables.director import Director
from workers.swarm.parts import SwarmObservable, SwarmPart

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class MultiSensing(SwarmObservable):
    """The numbers of the first, then those of the second, which may be another of this kind."""

    first: SwarmObservable = ConcentrationField()
    second: SwarmObservable = Director()

    def parts(self) -> tuple[SwarmPart, ...]:
        """Both."""
        return self.first, self.second

    def observe(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N, I + J)."""
        import torch

        return torch.cat([self.first.observe(engine, before, after), self.second.observe(engine, before, after)], -1)
