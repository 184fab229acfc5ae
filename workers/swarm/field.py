"""What acts on agents everywhere and follows from where they are alone: a force, or the flow of the fluid."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.settings import Plugin

if TYPE_CHECKING:
    from torch import Tensor

# D dimensions, first


@dataclass(frozen=True, kw_only=True)
class Field(Plugin):
    """A force or a flow: one file in `workers/swarm/fields/`. Positions (D, ...) in um are as the state holds them, not folded into a box.

    A flow gives both its velocity and its gradient. Each position's numbers must not depend on the others.
    """

    group: ClassVar[str] = "swarm.fields"

    def pace(self, mobility: float) -> float:
        """In 1 / s, at most: the gradient of the velocity, and of the force times a mobility (um / (pN s)); substeps resolve it."""
        return 0.0

    def force(self, positions: "Tensor") -> "Tensor | None":
        """On each agent (D, ...), in pN; None: none anywhere."""
        return None

    def velocity(self, positions: "Tensor") -> "Tensor | None":
        """Of the fluid (D, ...), in um / s; None: it rests."""
        return None

    def gradient(self, positions: "Tensor") -> "Tensor | None":
        """Derivatives (D, D, ...) of the velocity's component of the first index by the coordinate of the second, in 1 / s."""
        return None
