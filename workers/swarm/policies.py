"""Policies that learn: actors, critics and the state of their optimiser, and which agents share a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import noise
from workers.swarm.networks import Architecture, Networks, networks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from workers.swarm.arena import Arena
    from workers.swarm.parts import Learner

# P policies of G groups of agents each, so P G networks; E environments; N agents; K = E N / G agents of a network; I inputs; A outputs

# what tells the critic's seed from the actor's, and a group's from another's
CRITIC, GROUP = 2**32, 2**40


@dataclass(frozen=True, slots=True)
class Acting:
    """Actors, one a group of agents of each policy."""

    actor: Networks
    num_groups: int

    def by_network(self, values: "Tensor") -> "Tensor":
        """(P G, K, ...) of values (P, E, N, ...): agents stand in G groups of equal size, in the order of their numbers."""
        num_policies, num_environments, num_agents, *rest = values.shape
        groups = values.view(num_policies, num_environments, self.num_groups, num_agents // self.num_groups, *rest)
        return groups.transpose(1, 2).reshape(num_policies * self.num_groups, -1, *rest)

    def by_agent(self, values: "Tensor", num_environments: int) -> "Tensor":
        """(P, E, N, ...) of values (P G, K, ...)."""
        num_networks, num_agents, *rest = values.shape
        groups = values.view(num_networks // self.num_groups, self.num_groups, num_environments, num_agents // num_environments, *rest)
        return groups.transpose(1, 2).flatten(2, 3)


@dataclass(slots=True)
class Policies:
    """Actors that learn, with a critic each; the optimiser treats each weight by itself, so policies do not meet.

    `keys` (P G, 1): of random numbers of a learner's own. `extra`: further networks of a learner, by name.
    """

    acting: Acting
    critic: Networks
    optimizer: "torch.optim.Optimizer"
    keys: "Tensor"
    extra: "dict[str, Networks]"

    @property
    def actor(self) -> Networks:
        """Of all."""
        return self.acting.actor

    @property
    def num_groups(self) -> int:
        """G."""
        return self.acting.num_groups

    def parameters(self) -> "list[Tensor]":
        """Of actor, critic and what a learner trains beside."""
        return [tensor for one in (self.actor, self.critic, *self.extra.values()) for tensor in one.parameters()]

    def weights(self, policy: int) -> "dict[str, Tensor]":
        """Of one policy's networks, by name."""
        part = self._part(policy)
        return {name: tensor.detach()[part] for name, tensor in self._named().items()}

    def tensors(self, policy: int) -> "dict[str, Tensor]":
        """What is kept of one policy: weights, and the optimiser's means of gradients, by name."""
        part, found = self._part(policy), self.weights(policy)
        for name, tensor in self._named().items():
            for key, value in self.optimizer.state.get(tensor, {}).items():
                found[f"{name}.{key}"] = value[part] if value.dim() else value
        return found

    def restore(self, kept: "Sequence[Mapping[str, Tensor]]") -> None:
        """Put back what `tensors` gave of each policy, all after equally many updates."""
        import torch

        for name, tensor in self._named().items():
            with torch.no_grad():
                tensor.copy_(torch.cat([one[name] for one in kept]))
            state = {}
            for key in (full.removeprefix(f"{name}.") for full in kept[0] if full.startswith(f"{name}.")):
                parts = [one[f"{name}.{key}"] for one in kept]
                joined = torch.cat(parts) if parts[0].dim() else parts[0].clone()
                state[key] = joined.to(tensor.device) if joined.dim() else joined
            if state:
                self.optimizer.state[tensor] = state

    def _part(self, policy: int) -> slice:
        return slice(policy * self.num_groups, (policy + 1) * self.num_groups)

    def _named(self) -> "dict[str, Tensor]":
        named = {"actor": self.actor, "critic": self.critic, **self.extra}
        return {
            f"{name}.{kind}{layer}": tensor
            for name, one in named.items()
            for kind, tensors in (("weight", one.weights), ("bias", one.biases))
            for layer, tensor in enumerate(tensors)
        }


def new_policies(seeds: "Sequence[int]", arena: "Arena", learner: "Learner", architecture: Architecture, num_groups: int = 1) -> Policies:
    """Of each policy's own seed, for what is seen and done in an arena."""
    device, dtype, num_inputs = arena.seen.device, arena.engine.dtype, arena.seen.shape[-1]
    seeds_P = network_seeds(seeds, num_groups, str(device))
    actor = new_networks(seeds_P, num_inputs, arena.action.num_outputs, architecture, dtype)
    critic = new_networks(seeds_P + CRITIC, num_inputs, 1, architecture, dtype)
    extra = learner.extra(seeds_P, num_inputs, dtype)
    parameters = [tensor for one in (actor, critic, *extra.values()) for tensor in one.parameters() if tensor.requires_grad]
    keys = noise.particle_keys(seeds_P, 1, 1, noise.CHOICES)[:, 0]
    return Policies(Acting(actor, num_groups), critic, learner.optimizer(parameters), keys, extra)


def network_seeds(seeds: "Sequence[int]", num_groups: int, device: str) -> "Tensor":
    """One for each network (P G,)."""
    import torch

    found = [(seed + GROUP * group) % 2**63 for seed in seeds for group in range(num_groups)]
    return torch.tensor(found, dtype=torch.int64, device=device)


def new_networks(seeds_P: "Tensor", num_inputs: int, num_outputs: int, architecture: Architecture, dtype: "torch.dtype") -> Networks:
    """Of weights by each network's seed."""
    sizes = [num_inputs, *architecture.hidden, num_outputs]
    return networks(sizes, seeds_P, noise.WEIGHTS, dtype, architecture.activation)
