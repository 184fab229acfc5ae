"""Where an agent faces."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm.parts import SwarmObservable

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class Director(SwarmObservable):
    """The unit vector along which an agent swims."""

    def observe(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N, D)."""
        import torch

        return torch.stack(list(after.directors), -1)
