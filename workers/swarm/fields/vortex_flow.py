"""A vortex about the z axis with a core of finite width (Lamb and Oseen)."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.settings import setting
from workers.swarm.field import Field
from workers.swarm.sums import squared

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class VortexFlow(Field):
    """The velocity G / (2 pi r) (1 - exp(-r^2 / a^2)) about the origin, anticlockwise for G > 0."""

    circulation: float = setting(1000.0, unit="um^2/s", help="G, of the flow far from the core")
    core: float = setting(10.0, unit="um", above=0.0, help="a, about the distance at which the fluid is fastest")

    def pace(self, mobility: float) -> float:
        """Of the turning of the core, whatever the mobility."""
        return abs(self.circulation) / (2.0 * math.pi * self.core**2)

    def velocity(self, positions: "Tensor") -> "Tensor":
        """In the plane of x and y."""
        import torch

        turning, _ = self._turning(positions)
        found = torch.zeros_like(positions)
        found[0], found[1] = -positions[1] * turning, positions[0] * turning
        return found

    def gradient(self, positions: "Tensor") -> "Tensor":
        """Of (-y w, x w) with w a function of the squared distance."""
        found, (x, y) = positions.new_zeros(len(positions), *positions.shape), positions[:2]
        turning, slope = self._turning(positions)
        found[0, 0], found[0, 1] = -2.0 * x * y * slope, -turning - 2.0 * y * y * slope
        found[1, 0], found[1, 1] = turning + 2.0 * x * x * slope, 2.0 * x * y * slope
        return found

    def _turning(self, positions: "Tensor") -> "tuple[Tensor, Tensor]":
        """The velocity over the distance, and its derivative by the squared distance."""
        import torch

        unit = self.circulation / (2.0 * math.pi * self.core**2)
        ratio = squared(positions[:2]) / self.core**2
        # near the axis by the series, whose digits the differences lose: 1 - q / 2 + q^2 / 6 and -1 / 2 + q / 3 - q^2 / 8
        far = ratio.clamp(min=1e-2)
        share = torch.where(ratio < 1e-2, 1.0 - ratio * (0.5 - ratio * (1 / 6 - ratio / 24)), -torch.expm1(-far) / far)
        slope = torch.where(
            ratio < 1e-2, ratio * (1 / 3 - ratio * (0.125 - ratio / 30)) - 0.5, (torch.exp(-far) + torch.expm1(-far) / far) / far
        )
        return unit * share, unit / self.core**2 * slope
