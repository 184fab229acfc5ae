"""Trains actors and critics of many policies at once, each as if it were alone."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workers.swarm import learning, noise
from workers.swarm.networks import Networks, networks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from workers.swarm.arena import Arena

# P policies; T slices


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGradient:
    """Actor-critic policy gradient of 2307.00994: returns standardised over the episode for each agent, one update an episode."""

    discount: float = 0.99
    learning_rate: float = 1e-3


@dataclass(slots=True)
class Learner:
    """`actor` and `critic` of each policy with their optimiser; Adam treats each weight by itself, so policies do not meet."""

    actor: Networks
    critic: Networks
    settings: PolicyGradient
    optimizer: "torch.optim.Optimizer" = field(init=False)

    def __post_init__(self) -> None:
        import torch

        parameters = [*self.actor.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=self.settings.learning_rate, fused=True)

    @classmethod
    def of(cls, arena: "Arena", seeds: "Sequence[int]", settings: PolicyGradient, hidden: "Sequence[int]" = (128, 128)) -> "Learner":
        """With weights of each policy's seed."""
        import torch

        seeds_P = torch.tensor(list(seeds), dtype=torch.int64, device=arena.seen.device)
        inputs, dtype = arena.seen.shape[-1], arena.engine.dtype
        actor = networks([inputs, *hidden, arena.num_actions], seeds_P, noise.WEIGHTS, dtype)
        critic = networks([inputs, *hidden, 1], seeds_P + 2**32, noise.WEIGHTS, dtype)
        return cls(actor, critic, settings)

    def learn(self, episode: learning.Episode) -> None:
        """One update."""
        num_slices = len(episode.observations)
        # (P, T K, I): the samples of a policy stand together
        inputs = episode.observations.transpose(0, 1).flatten(1, 2)
        targets = learning.standardised(learning.returns(episode.rewards, self.settings.discount))

        def by_time(values: "torch.Tensor") -> "torch.Tensor":
            """(T, P, K, ...)."""
            return values.view(len(values), num_slices, -1, values.shape[-1]).transpose(0, 1)

        loss = learning.policy_gradient(by_time(self.actor(inputs)), by_time(self.critic(inputs))[..., 0], episode.actions, targets)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
