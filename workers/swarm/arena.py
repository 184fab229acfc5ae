"""What agents see, do and are rewarded for, slice by slice, in all environments of all policies at once."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from workers.swarm import noise
from workers.swarm.learning import Episode
from workers.swarm.networks import Networks, explore, sample

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import Engine, State

# P policies; E environments; N agents; K = E N; I observed numbers; A actions; T slices


class Sensor(Protocol):
    """What an agent sees of a state; it may remember the state before."""

    def observe(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """Numbers (P, E, N, I)."""


class Task(Protocol):
    """What an agent is rewarded for."""

    def reward(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """Of what agents did between two states (P, E, N)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """For one slice: a force along the director, in units of the one for the swim speed, and a torque, of that for the turn rate."""

    force: float = 0.0
    torque: float = 0.0


# SwarmRL calls the first "clockwise"; about +z it is counter-clockwise
ACTIONS = (Action(torque=1.0), Action(force=1.0), Action(torque=-1.0), Action())


class Arena:
    """An engine with agents that see by `sensor`, are rewarded by `task`, and act by one of `actions` with forces and torques (P,)."""

    def __init__(
        self,
        engine: "Engine",
        state: "State",
        sensor: Sensor,
        task: Task,
        *,
        forces_P: "Sequence[float]",
        torques_P: "Sequence[float]",
        actions: Sequence[Action] = ACTIONS,
    ) -> None:
        import torch

        self.engine, self.state, self.sensor, self.task = engine, state, sensor, task
        device = state.positions.device

        def table(own: "Sequence[float]", shares: "Sequence[float]") -> "Tensor":
            return torch.outer(*(torch.tensor(values, dtype=torch.float64) for values in (own, shares))).to(device, engine.dtype)

        self.forces_PA = table(forces_P, [one.force for one in actions])
        self.torques_PA = table(torques_P, [one.torque for one in actions])
        self.num_actions = len(actions)
        self.seen = sensor.observe(engine, state, state)

    def step(self, actions: "Tensor") -> "Tensor":
        """Advance by one slice with actions (P, E, N); their rewards (P, E, N). What agents see then is `seen`."""
        flat = actions.flatten(1)
        forces, torques = (table.gather(1, flat).view(actions.shape) for table in (self.forces_PA, self.torques_PA))
        before = replace(self.state)
        self.engine.advance(self.state, forces, torques)
        self.seen = self.sensor.observe(self.engine, before, self.state)
        return self.task.reward(self.engine, before, self.state)

    def episode(self, actor: Networks, num_slices: int, exploration: float = 0.0) -> Episode:
        """`num_slices` slices of actions drawn from the actor's logits, without gradients."""
        import torch

        observations, actions, rewards = [], [], []
        keys, other = self.engine.keys[noise.CHOICES], self.engine.keys[noise.EXPLORATION]
        with torch.no_grad():
            for _ in range(num_slices):
                logits = actor(self.seen.flatten(1, 2)).view(*self.engine.shape, -1)
                chosen = explore(sample(logits, keys, self.engine.slices), other, self.engine.slices, exploration, self.num_actions)
                observations.append(self.seen.flatten(1, 2))
                actions.append(chosen.flatten(1))
                rewards.append(self.step(chosen).flatten(1))
        return Episode(
            observations=torch.stack(observations), actions=torch.stack(actions), rewards=torch.stack(rewards), last=self.seen.flatten(1, 2)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcentrationChange:
    """10 (c(r_t) - c(r_(t-1))) of the field c(d) = 1000 um / d about the origin, as observed number and, where above 0, as reward."""

    scale: float = 10.0
    length: float = 1000.0
    nearest: float = 1e-3

    def observe(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N, 1)."""
        return self._change(before, after)[..., None]

    def reward(self, engine: "Engine", before: "State", after: "State") -> "Tensor":
        """(P, E, N)."""
        return self._change(before, after).clamp(min=0.0)

    def _change(self, before: "State", after: "State") -> "Tensor":
        old, new = (state.positions.square().sum(0).clamp(min=self.nearest**2).rsqrt() for state in (before, after))
        return (self.scale * self.length) * (new - old)
