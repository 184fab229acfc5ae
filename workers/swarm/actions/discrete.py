"""A few actions, of which one is chosen."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.swarm import noise
from workers.swarm.parts import Controls, SwarmAction
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

FORWARD = {0.0: "", 1.0: "forward", -1.0: "backward"}
TURNING = {0.0: "", 1.0: "ccw", -1.0: "cw"}


@dataclass(frozen=True, kw_only=True)
class Discrete(SwarmAction):
    """Turn one way, swim, turn the other way, or nothing (2307.00994); each holds for a slice.

    SwarmRL calls the first "clockwise"; about +z it is counter-clockwise.
    """

    forces: tuple[float, ...] = setting((0.0, 1.0, 0.0, 0.0), help="of each action, shares of the force of the swim speed")
    torques: tuple[float, ...] = setting((1.0, 0.0, -1.0, 0.0), help="of each action, shares of the torque of the turn rate")

    exploration: str = setting(
        "own", choices=("own", "shared"), help="own: each agent that explores draws its action; shared: those of a slice do the same one"
    )

    def check(self) -> None:
        """One share of each for every action."""
        if len(self.forces) != len(self.torques) or len(self.forces) < 2:
            raise ConfigError(f"forces and torques must be of the same two or more actions, got {self.forces} and {self.torques}")

    @property
    def num_outputs(self) -> int:
        """A logit an action."""
        return len(self.forces)

    @property
    def largest_force(self) -> float:
        """Of the actions."""
        return max(map(abs, self.forces))

    @property
    def names(self) -> tuple[str, ...]:
        """ccw, forward, cw and nothing; other shares by their numbers."""
        found = []
        for force, torque in zip(self.forces, self.torques, strict=True):
            words = [FORWARD.get(force, f"force {force:g}"), TURNING.get(torque, f"torque {torque:g}")]
            found.append(" ".join(word for word in words if word) or "nothing")
        return tuple(found)

    def sample(self, outputs: "Tensor", keys: "Tensor", step: int) -> "Tensor":
        """The number of the largest logit plus Gumbel's noise."""
        u = noise.uniforms(keys, step, self.num_outputs, outputs.dtype).movedim(0, -1)
        return (outputs - (-u.log()).log()).argmax(-1)

    def explore(self, actions: "Tensor", keys: "Tensor", step: int, probability: float) -> "Tensor":
        """Every action is as likely; which agents explore, each draws for itself.

        With `shared` exploration the agents (..., N) of an environment that explore do what its first agent has drawn (SwarmRL in 2023).
        """
        import torch

        if probability == 0.0:
            return actions
        u, v = noise.uniforms(keys, step, 2, torch.float32)
        if self.exploration == "shared":
            v = v[..., :1].expand_as(u)
        return torch.where(u < probability, (v * self.num_outputs).long().clamp_(max=self.num_outputs - 1), actions)

    def log_probability(self, outputs: "Tensor", actions: "Tensor") -> "tuple[Tensor, Tensor]":
        """Of a categorical distribution."""
        import torch

        logs = torch.log_softmax(outputs, -1)
        return logs.gather(-1, actions[..., None])[..., 0], -(logs.exp() * logs).sum(-1)

    def controls(self, actions: "Tensor") -> Controls:
        """By the table of shares."""
        import torch

        def table(shares: tuple[float, ...]) -> "Tensor":
            return torch.tensor(shares, device=actions.device)[actions]

        return Controls(force=table(self.forces), torque=table(self.torques))
