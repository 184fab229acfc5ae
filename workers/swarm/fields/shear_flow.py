"""Simple shear: a fluid that flows along x, the faster the greater y."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.settings import setting
from workers.swarm.field import Field

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ShearFlow(Field):
    """The velocity (rate y, 0, 0)."""

    rate: float = setting(1.0, unit="1/s", help="velocity along x per distance along y")

    def pace(self, mobility: float) -> float:
        """The rate, whatever the mobility."""
        return abs(self.rate)

    def velocity(self, positions: "Tensor") -> "Tensor":
        """Along x."""
        import torch

        found = torch.zeros_like(positions)
        found[0] = self.rate * positions[1]
        return found

    def gradient(self, positions: "Tensor") -> "Tensor":
        """The same everywhere."""
        found = positions.new_zeros(len(positions), *positions.shape)
        found[0, 1] = self.rate
        return found
