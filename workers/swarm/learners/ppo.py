"""Proximal policy optimisation: several epochs of clipped steps an episode."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.swarm import learning
from workers.swarm.parts import Learner, SwarmAction
from workers.workload import setting

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.policies import Policies

# P networks; B samples of a network, b of them in a minibatch; T slices; K agents of a network; I observed numbers


# of the logarithm of a probability, as far as it counts
LARGEST_CHANGE = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """What a step looks at: `inputs` (P, B, I), `actions` (P, B, ...), and (P, B) log pi of them before the update, A, and targets of V."""

    inputs: "Tensor"
    actions: "Tensor"
    logs: "Tensor"
    advantages: "Tensor"
    targets: "Tensor"

    def at(self, places: "Tensor") -> "Samples":
        """Those at `places` (P, b)."""
        return Samples(**{field.name: learning.taken(getattr(self, field.name), places) for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Ppo(Learner):
    """min(ratio A, clip(ratio) A), entropy and Huber's loss of V (Schulman et al. 2017, equations 7 and 9; defaults of 2404.16388).

    Advantages are standardised over all samples of a network; steps are of Adam, of actor and critic each by itself.
    """

    discount: float = setting(0.99, low=0.0, high=1.0)
    advantage_decay: float = setting(0.95, low=0.0, high=1.0, help="lambda of advantages: 1 is returns less V, 0 a single slice's error")
    num_epochs: int = setting(20, low=1, high=learning.MAX_EPOCHS, help="of steps on all samples of an episode")
    num_minibatches: int = setting(1, low=1, help="steps an epoch, each network's samples shuffled by its own seed; 1: none is left out")
    clip: float = setting(0.2, above=0, help="ratios of probabilities count no further than 1 - clip and 1 + clip")
    entropy_weight: float = setting(0.01, low=0.0)
    value_weight: float = setting(0.5, low=0.0, help="of the critic's loss")
    max_kl: float | None = setting(None, above=0, help="a network that came further from where it began changes no more in this update")
    max_gradient_norm: float | None = setting(None, above=0, help="of each actor and each critic")
    actor_learning_rate: float = setting(3e-4, above=0)
    critic_learning_rate: float = setting(1e-3, above=0)
    weight_decay: float = setting(0.0, low=0.0, help="share of the learning rate by which weights decay at each step (AdamW)")
    as_swarmrl: bool = setting(False, help="advantages anew in each epoch by the critic as it is then, and nothing is worth after the end")

    def check(self) -> None:
        """What SwarmRL does knows no minibatches."""
        if self.as_swarmrl and self.num_minibatches > 1:
            raise ConfigError(f"num_minibatches must be 1 where as_swarmrl is true, got {self.num_minibatches}")

    def check_samples(self, num_samples: int) -> None:
        """A sample for each minibatch."""
        if self.num_minibatches > num_samples:
            raise ConfigError(f"num_minibatches must be at most the {num_samples} samples of an episode, got {self.num_minibatches}")

    def learn(self, policies: "Policies", action: SwarmAction, episode: learning.Episode) -> "Mapping[str, Tensor]":
        """One update of `num_epochs`; entropy, divergence and share of clipped samples are those before the last step."""
        import torch

        self.check_samples(episode.rewards[:, 0].numel())
        said: dict[str, Tensor] = {}
        active_P, steps = torch.ones_like(policies.updates, dtype=torch.bool), torch.zeros_like(policies.updates)
        for part in self._parts(policies, action, episode):
            loss, now = self.loss(policies, action, part)
            # of a network that changes no more, what it said when it stopped
            said = {name: torch.where(active_P, value, said[name]) for name, value in now.items()} if said else now
            if self.max_kl is not None:
                active_P &= said["divergence"] <= self.max_kl
                if not active_P.any():
                    break
            self._step(policies, loss, None if self.max_kl is None else active_P)
            steps += active_P
        policies.updates += 1
        return said | {"steps": steps}

    def samples(self, policies: "Policies", action: SwarmAction, episode: learning.Episode, logs: "Tensor | None" = None) -> Samples:
        """Of an episode, with log pi as the actor is now unless `logs` are given."""
        import torch

        inputs, actions = episode.inputs(), episode.by_sample(episode.actions)
        with torch.no_grad():
            values = policies.critic(torch.cat([inputs, episode.last], 1))[..., 0]
            now, last = episode.by_time(values[:, : inputs.shape[1]]), values[:, inputs.shape[1] :]
            if self.as_swarmrl:
                last = torch.zeros_like(last)
            advantages = learning.advantages(episode.rewards, now, last, self.discount, self.advantage_decay)
            return Samples(
                inputs=inputs,
                actions=actions,
                logs=action.log_probability(policies.actor(inputs), actions)[0] if logs is None else logs,
                advantages=learning.standardised_samples(episode.by_sample(advantages).contiguous()),
                targets=episode.by_sample(advantages + now),
            )

    def loss(self, policies: "Policies", action: SwarmAction, samples: Samples) -> "tuple[Tensor, dict[str, Tensor]]":
        """Of all networks together, each the mean of its samples, and what to say of each (P,).

        The divergence is the mean of ratio - 1 - log ratio (http://joschu.net/blog/kl-approx.html).
        """
        import torch
        from torch.nn.functional import huber_loss

        logs, entropy = action.log_probability(policies.actor(samples.inputs), samples.actions)
        changes = logs - samples.logs
        # beyond this, 0 times infinity would make gradients of what is clipped no numbers
        ratios = changes.clamp(max=LARGEST_CHANGE).exp()
        clipped = ratios.clamp(1.0 - self.clip, 1.0 + self.clip)
        gain = torch.minimum(ratios * samples.advantages, clipped * samples.advantages)
        error = huber_loss(policies.critic(samples.inputs)[..., 0], samples.targets, reduction="none")
        loss = (self.value_weight * error - gain - self.entropy_weight * entropy).mean(-1).sum()
        with torch.no_grad():
            divergence, beyond = (ratios - 1.0 - changes).mean(-1), (ratios != clipped).to(ratios.dtype).mean(-1)
        return loss, {"entropy": entropy.detach().mean(-1), "divergence": divergence, "clipped": beyond}

    def _parts(self, policies: "Policies", action: SwarmAction, episode: learning.Episode) -> "Iterator[Samples]":
        samples = self.samples(policies, action, episode)
        keys_P, num_samples = policies.keys[:, 0], samples.logs.shape[1]
        for epoch in range(self.num_epochs):
            if epoch and self.as_swarmrl:
                samples = self.samples(policies, action, episode, samples.logs)
            if self.num_minibatches == 1:
                yield samples
                continue
            for places in learning.minibatches(keys_P, policies.updates, epoch, num_samples, self.num_minibatches):
                yield samples.at(places)

    def _step(self, policies: "Policies", loss: "Tensor", active_P: "Tensor | None") -> None:
        import torch

        found = torch.autograd.grad(loss, policies.parameters())
        count = len(policies.actor.parameters())
        for networks, rate, gradients in (
            (policies.actor, self.actor_learning_rate, found[:count]),
            (policies.critic, self.critic_learning_rate, found[count:]),
        ):
            short = gradients if self.max_gradient_norm is None else learning.shortened(gradients, self.max_gradient_norm)
            policies.optimizer.step(networks.parameters(), short, rate, weight_decay=self.weight_decay, active_P=active_P)
