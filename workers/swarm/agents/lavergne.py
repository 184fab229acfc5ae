"""Swims only while it sees enough of others."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import sight
from workers.swarm.parts import ClassicalAgent, Controls
from workers.swarm.sums import dot
from workers.workload import setting

if TYPE_CHECKING:
    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class Lavergne(ClassicalAgent):
    """Motility by visual perception (Lavergne, Wendehenne, Baeuerle, Bechinger 2019, Science 364, 70).

    The perception of an agent is the sum of 1 / (2 pi r) over the others in its vision cone, at distances r of centres; it swims along its
    director where that is at least `threshold`, else it only diffuses. It is never turned: Brownian rotation does that.
    """

    half_angle: float = setting(0.5 * math.pi, above=0, high=math.pi, unit="rad", help="of the vision cone about the director")
    reach: float | None = setting(None, above=0, unit="um", help="how far agents see; null: any distance")
    threshold: float = setting(0.01, low=0, unit="1/um")
    force: float = setting(1.0, help="share of the force of the swim speed, where it swims")

    def controls(self, engine: "Engine", before: "State", after: "State") -> Controls:
        """No torque."""
        import torch

        apart = sight.to_agents(engine, after)
        seen = sight.in_sight(engine, after, apart, self.half_angle, self.reach)
        nearness = dot(apart, apart).rsqrt() / (2.0 * math.pi)
        force = self.force * (nearness.masked_fill(~seen, 0.0).sum(-1) >= self.threshold)
        return Controls(force=force.to(engine.dtype), torque=torch.zeros_like(after.positions[0]))
