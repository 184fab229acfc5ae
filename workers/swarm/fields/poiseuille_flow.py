"""Flow through a channel between two walls across y, whose profile is a parabola (Poiseuille)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.settings import setting
from workers.swarm.field import Field

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class PoiseuilleFlow(Field):
    """The velocity max(0, speed (1 - y^2 / h^2)) along x; outside the channel the fluid rests."""

    speed: float = setting(10.0, unit="um/s", help="velocity in the middle of the channel")
    half_width: float = setting(50.0, unit="um", above=0.0, help="h, from the middle to a wall")

    def pace(self, mobility: float) -> float:
        """Of the gradient at a wall, whatever the mobility."""
        return 2.0 * abs(self.speed) / self.half_width

    def velocity(self, positions: "Tensor") -> "Tensor":
        """Along x."""
        import torch

        found = torch.zeros_like(positions)
        found[0] = self.speed * (1.0 - (positions[1] / self.half_width).square()).clamp(min=0.0)
        return found

    def gradient(self, positions: "Tensor") -> "Tensor":
        """Of the velocity along x by y alone."""
        import torch

        found, y = positions.new_zeros(len(positions), *positions.shape), positions[1]
        found[0, 1] = torch.where(y.abs() < self.half_width, (-2.0 * self.speed / self.half_width**2) * y, 0.0)
        return found
