"""Weight: agents sink along -y in a plane and along -z in space."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.settings import setting
from workers.swarm.field import Field

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Gravity(Field):
    """The weight of an agent less that of the fluid in its place, down the last axis."""

    weight: float = setting(0.01, unit="pN", help="weight less buoyancy; below 0 where agents rise")

    def force(self, positions: "Tensor") -> "Tensor":
        """The same for all."""
        import torch

        found = torch.zeros_like(positions)
        found[-1] = -self.weight
        return found
