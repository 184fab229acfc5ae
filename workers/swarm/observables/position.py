"""Where an agent is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm.parts import SwarmObservable
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class Position(SwarmObservable):
    """The coordinates from the middle, not folded into a box, over a length."""

    length: float = setting(1000.0, above=0, unit="um")

    def observe(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N, D)."""
        import torch

        return torch.stack(list(after.positions / self.length), -1)
