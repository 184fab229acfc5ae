"""An agent that always does the same."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm.parts import ClassicalAgent, Controls
from workers.workload import setting

if TYPE_CHECKING:
    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class Constant(ClassicalAgent):
    """A fixed force and a fixed torque: an active Brownian particle, or one that goes in circles."""

    force: float = setting(1.0, help="share of the force of the swim speed")
    torque: float = setting(0.0, help="share of the torque of the turn rate, about +z")

    def controls(self, engine: "Engine", before: "State", after: "State") -> Controls:
        """The same for all."""
        import torch

        force = torch.full_like(after.positions[0], self.force)
        return Controls(force=force, torque=torch.full_like(force, self.torque))
