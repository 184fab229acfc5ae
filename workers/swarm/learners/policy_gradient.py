"""Actor-critic policy gradient, one update an episode."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import learning
from workers.swarm.parts import Learner, SwarmAction
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.policies import Policies


# networks whose gradients are computed together
AT_ONCE = 32


@dataclass(frozen=True, kw_only=True)
class PolicyGradient(Learner):
    """-log pi(a_t | s_t) (G_t - V(s_t)) and Huber's loss of V to G, summed over an episode and averaged over agents (2307.00994).

    Returns G are standardised over the episode for each agent.
    """

    discount: float = setting(0.99, low=0.0, high=1.0)
    learning_rate: float = setting(1e-3, above=0, help="of Adam")

    def learn(self, policies: "Policies", action: SwarmAction, episode: learning.Episode) -> "Mapping[str, Tensor]":
        """One update."""
        import torch

        found, entropies = [], []
        for some, part in policies.parts(AT_ONCE):
            loss, entropy = self._loss(part, action, episode.part(some))
            found.append(torch.autograd.grad(loss, part.parameters()))
            entropies.append(entropy)
        gradients = [torch.cat(parts) for parts in zip(*found, strict=True)]
        policies.optimizer.step(policies.parameters(), gradients, self.learning_rate)
        policies.updates += 1
        return {"entropy": torch.cat(entropies)}

    def _loss(self, policies: "Policies", action: SwarmAction, episode: learning.Episode) -> "tuple[Tensor, Tensor]":
        """Of all networks together: each weight has the gradient of its own policy's share. And the entropy (P,) of actions."""
        from torch.nn.functional import huber_loss

        inputs = episode.inputs()
        targets = learning.standardised(learning.returns(episode.rewards, self.discount))
        values = episode.by_time(policies.critic(inputs))[..., 0]
        logs, entropy = action.log_probability(episode.by_time(policies.actor(inputs)), episode.actions)
        actor = -(logs * (targets - values.detach()))
        critic = huber_loss(values, targets, reduction="none")
        loss: Tensor = (actor + critic).sum() / targets.shape[-1]
        return loss, learning.mean_of_first(entropy.detach()).mean(-1)
