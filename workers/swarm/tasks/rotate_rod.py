"""Rewards turning a rod."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import sight
from workers.swarm.contacts import rod_direction
from workers.swarm.parts import SwarmTask
from workers.swarm.sums import dot
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State

# P policies; E environments; N agents; B beads; H slices of the history

# um; an agent is never nearer to a bead's centre than this, for the shares
NEAREST = 1e-3


@dataclass(frozen=True, kw_only=True)
class RotateRod(SwarmTask):
    """scale times the rod's angular velocity (degrees / s), the mean of the last slices, of which each agent has its share (2307.00994).

    `ccw` counts turns about +z, `cw` those about -z, negative where the rod turns the other way; `any` their size. Shares: `equal` 1 / N;
    `torque` |t_i| / sum_k |t_k|, where t_i = sum over beads of n x f_ij, n is the rod's unit vector and f_ij = grad 1 / r^12 between agent
    and bead, as SwarmRL has it, so that no bead has a lever arm; `lever` the same with t_i = sum_j l_j n x f_ij, the torque about the
    centre. Where all torques are 0, shares are equal.
    """

    partition: str = setting("torque", choices=("equal", "torque", "lever"))
    direction: str = setting("ccw", choices=("ccw", "cw", "any"))
    scale: float = setting(1.0, above=0)
    velocity_history: int = setting(
        100, low=1, unit="slices", help="over so many slices, or those that there were, the velocity is averaged"
    )

    @property
    def needs_rod(self) -> bool:
        """Always."""
        return True

    def reward(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N); `after.memory` keeps velocities (P, H, E), the newest last, and how many slices (P, E) there were."""
        self.require(engine.num_dimensions, rod=engine.rod is not None)
        velocity = self._velocity(engine, before, after)
        size = {"ccw": velocity, "cw": -velocity, "any": velocity.abs()}[self.direction]
        return (self.scale * size)[..., None] * self._shares(engine, after)

    def _velocity(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """The mean (P, E) in degrees / s of what is remembered and of this slice; angles of rods are not folded, so turns count fully."""
        import torch

        assert before.rods is not None
        assert after.rods is not None
        now = ((after.rods - before.rods) * (math.degrees(1.0) / engine.slice_seconds)).to(engine.dtype)
        velocities, slices = (f"rotate_rod.{what}.{self.velocity_history}" for what in ("velocities", "slices"))
        if velocities in before.memory:
            kept, count = before.memory[velocities], before.memory[slices]
        else:
            kept = now.new_zeros(now.shape[0], self.velocity_history, now.shape[1])
            count = torch.zeros_like(now, dtype=torch.int64)
        kept, count = torch.cat([kept[:, 1:], now[:, None]], 1), (count + 1).clamp(max=self.velocity_history)
        after.memory[velocities], after.memory[slices] = kept, count
        return kept.transpose(1, 2).contiguous().sum(-1) / count

    def _shares(self, engine: "Engine", state: "State") -> "Tensor":
        """(P, E, N), which add up to 1."""
        import torch

        assert state.rods is not None
        equal = torch.full_like(state.positions[0], 1.0 / engine.shape[2])
        if self.partition == "equal":
            return equal
        apart = sight.to_beads(engine, state)
        square = dot(apart, apart).clamp(min=NEAREST**2)
        # of the environment's smallest distance, whose scale no share depends on: the powers stay numbers however far agents are
        ratio = square.amin((-2, -1), keepdim=True) / square
        third = ratio * ratio * ratio
        strength = third * third * ratio
        cosine, sine = rod_direction(state.rods, engine.dtype)[..., None, None]
        aside = cosine * apart[1] - sine * apart[0]
        torques = strength * aside
        if self.partition == "lever":
            assert engine.levers is not None
            torques = torques * engine.levers
        sizes = torques.sum(-1).abs()
        total = sizes.sum(-1, keepdim=True)
        return torch.where(total > 0.0, sizes / total, equal)
