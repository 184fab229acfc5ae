"""Runs straight, and tumbles more often where the concentration falls."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import noise
from workers.swarm.concentration import Concentration
from workers.swarm.parts import ClassicalAgent, Controls
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State


@dataclass(frozen=True, kw_only=True)
class RunAndTumble(ClassicalAgent):
    """As the bacterium E. coli (Berg and Brown 1972), with two rates: swims on always, and faces anywhere after a tumble, at once.

    A slice is tumbled before with probability 1 - exp(-rate seconds), where the rate is `falling_rate` if the concentration was lower
    after the last slice than before it, else `rate`. Equal rates know no gradient.
    """

    field: Concentration = Concentration()
    rate: float = setting(0.1, low=0, unit="1/s", help="of tumbles, while the concentration rises or stays")
    falling_rate: float = setting(1.0, low=0, unit="1/s", help="of tumbles, while the concentration falls")
    force: float = setting(1.0, help="share of the force of the swim speed")

    def controls(self, engine: "Engine", before: "State", after: "State") -> Controls:
        """No torque; new directors where agents tumble."""
        import torch

        tumbles, *drawn = noise.uniforms(engine.keys[noise.CHOICES], engine.slices, 3, engine.dtype)
        falls = self.field.change(before.positions, after.positions) < 0.0
        probability = torch.where(falls, *(-math.expm1(-rate * engine.slice_seconds) for rate in (self.falling_rate, self.rate)))
        directors = torch.where(tumbles < probability, _anywhere(drawn, engine.num_dimensions), after.directors)
        force = torch.full_like(tumbles, self.force)
        return Controls(force=force, torque=torch.zeros_like(force), directors=directors)


def _anywhere(drawn: "list[Tensor]", num_dimensions: int) -> "Tensor":
    """Unit vectors (D, ...), uniform on the circle or the sphere, from two uniform numbers (...)."""
    import torch

    angle = 2.0 * math.pi * drawn[0]
    if num_dimensions == 2:
        return torch.stack([angle.cos(), angle.sin()])
    height = 2.0 * drawn[1] - 1.0
    width = (1.0 - height.square()).clamp(min=0.0).sqrt()
    return torch.stack([width * angle.cos(), width * angle.sin(), height])
