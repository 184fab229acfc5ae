"""Turns at an angle to where it sees others, on the side to which they swim."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import sight
from workers.swarm.parts import ClassicalAgent, Controls
from workers.swarm.sums import dot
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class Baeuerle(ClassicalAgent):
    """Swirls and flocks by a deviation angle (Baeuerle, Loeffler, Bechinger 2020, Nat. Commun. 11, 2547), as SwarmRL has it.

    Of the others in its vision cone within `reach` an agent takes the mean position; `deviation` to its left and to its right are the two
    directions it may take. It takes that nearer to the mean director of itself and of the others in its cone within `orientation_reach`
    (the left one, if both are as near), and has the torque sin(angle from its director to there) times `torque`. Where it sees nobody
    within `reach` it has no torque, and `alone` times the force: SwarmRL has 0, and the paper does not say. SwarmRL does the same where it
    sees nobody within `orientation_reach`; here its own director is the mean then.
    """

    deviation: float = setting(0.0, low=0, high=math.pi, unit="rad")
    half_angle: float = setting(math.pi, above=0, high=math.pi, unit="rad", help="of the vision cone about the director")
    reach: float | None = setting(None, above=0, unit="um", help="within which positions are seen; null: any distance")
    orientation_reach: float | None = setting(None, above=0, unit="um", help="within which directors are seen; null: any distance")
    force: float = setting(1.0, help="share of the force of the swim speed")
    torque: float = setting(1.0, help="share of the torque of the turn rate, at a right angle to where it turns")
    alone: float = setting(0.0, help="share of the force where nobody is seen")

    @property
    def dimensions(self) -> tuple[int, ...]:
        """Left and right are those of a plane."""
        return (2,)

    def controls(self, engine: "Engine", before: "State", after: "State") -> Controls:
        """ConfigError in space."""
        import torch

        self.require(engine.num_dimensions, rod=engine.rod is not None)
        apart = sight.to_agents(engine, after)
        near = sight.in_sight(engine, after, apart, self.half_angle, self.reach)
        facing = sight.in_sight(engine, after, apart, self.half_angle, self.orientation_reach)
        wanted = self._wanted(sight.mean_of_seen(apart, near), self._facing(after, facing))
        x, y = after.directors
        turn = x * wanted[1] - y * wanted[0]
        sees = near.any(-1)
        force = torch.where(sees, self.force, self.alone)
        return Controls(force=force.to(engine.dtype), torque=torch.where(sees, self.torque * turn, 0.0))

    def _facing(self, state: "State", facing: "Tensor") -> "Tensor":
        """Along the mean director (2, P, E, N) of an agent itself and of the others it sees; of any length."""
        return state.directors + (state.directors[..., None, :] * facing).sum(-1)

    def _wanted(self, centre: "Tensor", facing: "Tensor") -> "Tensor":
        """The unit vector (2, P, E, N) along which an agent wants to swim; 0 at the very centre."""
        import torch

        x, y = centre / dot(centre, centre).sqrt().clamp(min=1e-12)
        cosine, sine = math.cos(self.deviation), math.sin(self.deviation)
        left = torch.stack([cosine * x - sine * y, cosine * y + sine * x])
        right = torch.stack([cosine * x + sine * y, cosine * y - sine * x])
        return torch.where(dot(left, facing) >= dot(right, facing), left, right)
