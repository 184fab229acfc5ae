"""A trap: the force of a spring to the origin."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.settings import setting
from workers.swarm.field import Field

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Harmonic(Field):
    """The force -k r, as of optical tweezers."""

    stiffness: float = setting(0.01, unit="pN/um", low=0.0, help="k, force per distance from the origin")

    def pace(self, mobility: float) -> float:
        """k times the mobility, by which a spring pulls in."""
        return self.stiffness * mobility

    def force(self, positions: "Tensor") -> "Tensor":
        """Towards the origin."""
        return -self.stiffness * positions
