"""Policies that learn: actors, critics and the state of their optimiser, and which agents share a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import noise
from workers.swarm.networks import Architecture, Networks, networks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# P policies of G groups of agents each, so P G networks; E environments; N agents; K = E N / G agents of a network; I inputs; A outputs

# what tells the critic's seed from the actor's, and a group's from another's
CRITIC, GROUP = 2**32, 2**40


@dataclass(slots=True)
class Policies:
    """`actor` and `critic` of each group of agents of each policy; the optimiser treats each weight by itself, so policies do not meet.

    `keys` (P G, 1): of random numbers of a learner's own. `extra`: further networks of a learner, by name.
    """

    actor: Networks
    critic: Networks
    optimizer: "torch.optim.Optimizer"
    num_groups: int
    keys: "Tensor"
    extra: "dict[str, Networks]"

    def parameters(self) -> "list[Tensor]":
        """Of actor, critic and what a learner trains beside."""
        return [tensor for one in (self.actor, self.critic, *self.extra.values()) for tensor in one.parameters()]

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

    def tensors(self, policy: int) -> "dict[str, Tensor]":
        """What is kept of one policy: weights, and the optimiser's means of gradients, by name."""
        part = slice(policy * self.num_groups, (policy + 1) * self.num_groups)
        found = {name: tensor.detach()[part] for name, tensor in self._named().items()}
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

    def _named(self) -> "dict[str, Tensor]":
        named = {"actor": self.actor, "critic": self.critic, **self.extra}
        return {
            f"{name}.{kind}{layer}": tensor
            for name, one in named.items()
            for kind, tensors in (("weight", one.weights), ("bias", one.biases))
            for layer, tensor in enumerate(tensors)
        }


def policy_seeds(seeds: "Sequence[int]", num_groups: int, device: str) -> "Tensor":
    """One for each network (P G,)."""
    import torch

    found = [(seed + GROUP * group) % 2**63 for seed in seeds for group in range(num_groups)]
    return torch.tensor(found, dtype=torch.int64, device=device)


def new_networks(
    seeds_P: "Tensor", num_inputs: int, num_outputs: int, architecture: Architecture, dtype: "torch.dtype", offset: int = 0
) -> Networks:
    """Of weights by each network's seed, and `offset`, which tells those of one seed apart."""
    sizes = [num_inputs, *architecture.hidden, num_outputs]
    return networks(sizes, seeds_P + offset, noise.WEIGHTS, dtype, architecture.activation)
