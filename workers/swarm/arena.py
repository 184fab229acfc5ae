"""What agents see, do and are rewarded for, slice by slice, in all environments of all policies at once."""

from dataclasses import replace
from typing import TYPE_CHECKING

from workers.swarm import noise
from workers.swarm.learning import Episode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from workers.swarm.engine import Engine, State
    from workers.swarm.parts import Controls, SwarmAction, SwarmObservable, SwarmTask
    from workers.swarm.policies import Acting

# P policies; E environments; N agents; I observed numbers; T slices

LATE = "arena.reward"


class Arena:
    """An engine with agents that see, are rewarded and act; `forces_P` (pN) and `torques_P` (pN um) are those of a share of 1.

    `late_rewards`: a reward is kept beside the next action, not beside the one that caused it, as SwarmRL does. `last`: of a `state` that
    something came before, the state before it, and what agents see (P, E, N, I).
    """

    def __init__(
        self,
        engine: "Engine",
        state: "State",
        *,
        observable: "SwarmObservable",
        task: "SwarmTask",
        action: "SwarmAction",
        forces_P: "Sequence[float]",
        torques_P: "Sequence[float]",
        late_rewards: bool = False,
        last: "tuple[State, Tensor] | None" = None,
    ) -> None:
        import torch

        self.engine, self.observable, self.task, self.action, self.late_rewards = engine, observable, task, action, late_rewards
        device = state.positions.device
        self.forces, self.torques = (
            torch.tensor(list(values), dtype=torch.float64).to(device, engine.dtype)[:, None, None] for values in (forces_P, torques_P)
        )
        if last is None:
            self.begin(state)
        else:
            self.state, (self.before, self.seen) = state, last

    def begin(self, state: "State") -> None:
        """At a state that comes from no slice before it."""
        import torch

        self.state = self.before = state
        self.seen = self.observable.observe(self.engine, state, state)
        if self.late_rewards:
            state.memory.setdefault(LATE, torch.zeros_like(state.positions[0]))

    def step(self, controls: "Controls") -> "Tensor":
        """Advance by one slice; the rewards (P, E, N). What agents see then is `seen`."""
        if controls.directors is not None:
            self.state.directors = controls.directors
        self.before = replace(self.state, memory=dict(self.state.memory))
        self.engine.advance(self.state, controls.force * self.forces, controls.torque * self.torques)
        rewards = self.task.reward(self.engine, self.before, self.state)
        self.seen = self.observable.observe(self.engine, self.before, self.state)
        if self.late_rewards:
            self.state.memory[LATE], rewards = rewards, self.state.memory[LATE]
        return rewards

    def act(self, acting: "Acting", exploration: float = 0.0) -> "Tensor":
        """Actions (P, E, N, ...) drawn for what is seen now."""
        outputs = acting.by_agent(acting.actor(acting.by_network(self.seen)), self.engine.shape[1])
        slices, keys = self.engine.slices, self.engine.keys
        chosen = self.action.sample(outputs, keys[noise.CHOICES], slices)
        return self.action.explore(chosen, keys[noise.EXPLORATION], slices, exploration)

    def episode(self, acting: "Acting", num_slices: int, exploration: float = 0.0) -> Episode:
        """`num_slices` slices of actions drawn by the actors, without gradients."""
        import torch

        observations, actions, rewards = [], [], []
        with torch.no_grad():
            for _ in range(num_slices):
                observations.append(acting.by_network(self.seen))
                chosen = self.act(acting, exploration)
                actions.append(acting.by_network(chosen))
                rewards.append(acting.by_network(self.step(self.action.controls(chosen))))
        return Episode(
            observations=torch.stack(observations),
            actions=torch.stack(actions),
            rewards=torch.stack(rewards),
            last=acting.by_network(self.seen),
        )
