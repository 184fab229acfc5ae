"""A flock about a home, which a predator drives: a swarm that can be a reservoir."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.swarm import sight
from workers.swarm.concentration import beyond
from workers.swarm.parts import ClassicalAgent, Controls
from workers.swarm.sums import dot
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State

# shares of the swim speed at which agents swim, (P, E, N)
SPEEDS = "lymburn.speeds"
# of `length`: nearer than this, others repel as there
NEAREST = 1e-3


@dataclass(frozen=True, kw_only=True)
class Lymburn(ClassicalAgent):
    """Forces of alignment, repulsion, homing, friction and a predator (Lymburn, Algar, Small, Juengling 2021, Chaos 31, 033121).

    F_i = K_a sum_j (v_j - v_i) + K_r sum_j l (r_i - r_j) / |r_i - r_j|^2 + K_h (r_home - r_i) / l - K_f v_i (|v_i| - 1)
    + K_p l (r_i - r_p) / |r_i - r_p|^2,

    with sums over the others within `reach`, and the predator within its own. Velocities v are directors times the share of the swim speed
    an agent swims at, 1 at first, so that friction drives it to the swim speed; lengths are in l = `length`, and factors in 1 / s. As in
    the paper F changes the velocity: after F times the slice's seconds an agent faces along v and swims at |v|, at most at `fastest`. Two
    deviations of SwarmRL are not followed: there F itself is the force that drives, and repulsion attracts if K_r is above 0.
    """

    alignment: float = setting(0.1, low=0, unit="1/s", help="K_a")
    repulsion: float = setting(0.1, low=0, unit="1/s", help="K_r")
    homing: float = setting(0.5, low=0, unit="1/s", help="K_h")
    friction: float = setting(1.0, low=0, unit="1/s", help="K_f")
    predation: float = setting(0.0, low=0, unit="1/s", help="K_p; 0: there is no predator")
    length: float = setting(10.0, above=0, unit="um", help="l")
    reach: float | None = setting(None, above=0, unit="um", help="within which others align and repel; null: any distance")
    home: tuple[float, ...] = setting((), unit="um", help="from the middle; empty: in the middle")
    predator: tuple[float, ...] = setting((), unit="um", help="where it starts, from the middle; empty: in the middle")
    predator_period: float | None = setting(None, above=0, unit="s", help="of its circle about the middle, in the plane; null: it stays")
    predator_reach: float | None = setting(None, above=0, unit="um", help="within which it is fled from; null: any distance")
    fastest: float = setting(1.0, above=0, help="share of the force of the swim speed")

    def check(self) -> None:
        """Places have two or three coordinates."""
        for name in ("home", "predator"):
            given = getattr(self, name)
            if len(given) not in (0, 2, 3):
                raise ConfigError(f"{name} must have two or three coordinates, or none for the middle, got {list(given)}")

    def controls(self, engine: "Engine", before: "State", after: "State") -> Controls:
        """No torque: directors are turned at once. `after.memory` keeps the speeds."""
        import torch

        speeds = before.memory.get(SPEEDS, torch.ones_like(after.positions[0]))
        velocities = speeds * after.directors
        velocities = velocities + engine.slice_seconds * self._force(engine, after, velocities)
        size = dot(velocities, velocities).sqrt()
        after.memory[SPEEDS] = size.clamp(max=self.fastest)
        directors = torch.where(size > 0.0, velocities / size.clamp(min=1e-12), after.directors)
        return Controls(force=after.memory[SPEEDS], torque=torch.zeros_like(size), directors=directors)

    def _force(self, engine: "Engine", state: "State", velocities: "Tensor") -> "Tensor":
        """(D, P, E, N), per second."""
        import torch

        apart = sight.to_agents(engine, state)
        seen = sight.in_sight(engine, state, apart, math.pi, self.reach)
        others = ((velocities[..., None, :] - velocities[..., :, None]) * seen).sum(-1)
        away = -(self._away(apart) * seen).sum(-1)
        size = dot(velocities, velocities).sqrt()
        home = torch.stack(beyond(state.positions, self.home)) / self.length
        found = self.alignment * others + self.repulsion * away - self.homing * home - self.friction * (size - 1.0) * velocities
        if self.predation == 0.0:
            return found
        predator = torch.stack(beyond(state.positions, self._where(engine.seconds)))
        flight = self._away(predator)
        if self.predator_reach is not None:
            flight = flight * (dot(predator, predator) <= self.predator_reach**2)
        return found + self.predation * flight

    def _away(self, apart: "Tensor") -> "Tensor":
        """l r / |r|^2 of vectors (D, ...)."""
        return self.length * apart / dot(apart, apart).clamp(min=(NEAREST * self.length) ** 2)

    def _where(self, seconds: float) -> tuple[float, ...]:
        """The predator."""
        if self.predator_period is None or not self.predator:
            return self.predator
        angle = 2.0 * math.pi * math.fmod(seconds, self.predator_period) / self.predator_period
        x, y, *rest = self.predator
        return (x * math.cos(angle) - y * math.sin(angle), y * math.cos(angle) + x * math.sin(angle), *rest)
