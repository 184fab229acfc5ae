"""The same force everywhere, as of a magnetic gradient."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.settings import setting
from workers.swarm.field import Field

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class UniformForce(Field):
    """A constant force along the axes."""

    x: float = setting(0.01, unit="pN", help="force along x")
    y: float = setting(0.0, unit="pN", help="force along y")
    z: float = setting(0.0, unit="pN", help="force along z, in three dimensions")

    def force(self, positions: "Tensor") -> "Tensor":
        """The same for all."""
        own = positions.new_tensor([self.x, self.y, self.z][: len(positions)])
        return own.view(-1, *[1] * (positions.dim() - 1)).expand_as(positions)
