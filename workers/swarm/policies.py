"""Policies that learn: actors, critics and the state of their optimiser, and which agents share a network."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from workers.swarm import noise
from workers.swarm.adam import Adam
from workers.swarm.networks import Architecture, Networks, networks

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from workers.swarm.curiosity import Curiosity
    from workers.swarm.parts import Learner

# P policies of G groups of agents each, so P G networks; E environments; N agents; K = E N / G agents of a network; I inputs; A outputs

# what tells seeds of one network apart, and a group's from another's
CRITIC, LEARNING, GROUP = 2**32, 2**33, 2**40


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
    """`actor` and `critic` of each group of agents of each policy; the optimiser treats each network by itself, so policies do not meet.

    `keys` (P G, 1): of random numbers of a learner's own. `updates` (P G,): how often each network has learned. `extra`: further networks,
    by name. `memory`: whatever else is kept with the weights, (P G, ...) by name.
    """

    actor: Networks
    critic: Networks
    num_groups: int
    keys: "Tensor"
    updates: "Tensor"
    optimizer: Adam = field(default_factory=Adam)
    extra: "dict[str, Networks]" = field(default_factory=dict)
    memory: "dict[str, Tensor]" = field(default_factory=dict)

    def parameters(self) -> "list[Tensor]":
        """Of actor and critic."""
        return [*self.actor.parameters(), *self.critic.parameters()]

    @property
    def acting(self) -> Acting:
        """The actors alone."""
        return Acting(self.actor, self.num_groups)

    def parts(self, size: int) -> "Iterator[tuple[slice, Policies]]":
        """The same networks a few at a time, for gradients whose numbers stay in a processor's cache; nothing else of them may change."""
        count = len(self.keys)
        for first in range(0, count, size):
            part = slice(first, min(first + size, count))
            actor, critic = (one.part(part) for one in (self.actor, self.critic))
            yield part, replace(self, actor=actor, critic=critic)

    def weights(self, policy: int) -> "dict[str, Tensor]":
        """Of one policy's networks, (G, ...) by name."""
        part = self._part(policy)
        return {name: tensor.detach()[part] for name, tensor in self._named().items()}

    def load(self, kept: "Sequence[Mapping[str, Tensor]]") -> None:
        """Take the weights that `weights` gave of each policy; the optimiser begins anew."""
        import torch

        with torch.no_grad():
            for name, tensor in self._named().items():
                tensor.copy_(torch.cat([one[name] for one in kept]))

    def tensors(self, policy: int) -> "dict[str, Tensor]":
        """What is kept of one policy, (G, ...) by name: weights, the optimiser's means, and what else its learner goes on from."""
        part = self._part(policy)
        found = {name: tensor.detach()[part] for name, tensor in (self._named() | self._remembered()).items()}
        for name, tensor in self._named().items():
            for key, value in self.optimizer.state.get(tensor, {}).items():
                found[f"{name}.{key}"] = value[part]
        return found

    def restore(self, kept: "Sequence[Mapping[str, Tensor]]") -> None:
        """Put back what `tensors` gave of each policy."""
        import torch

        with torch.no_grad():
            for name, tensor in (self._named() | self._remembered()).items():
                tensor.copy_(torch.cat([one[name] for one in kept]))
        for name, tensor in self._named().items():
            self.optimizer.state.pop(tensor, None)
            keys = sorted({full.removeprefix(f"{name}.") for one in kept for full in one if full.startswith(f"{name}.")})
            if keys:
                self.optimizer.state[tensor] = {
                    key: torch.cat([one[f"{name}.{key}"] for one in kept]).to(tensor.device, copy=True) for key in keys
                }

    def _part(self, policy: int) -> slice:
        return slice(policy * self.num_groups, (policy + 1) * self.num_groups)

    def _remembered(self) -> "dict[str, Tensor]":
        return {"updates": self.updates, **self.memory}

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


def new_policies(
    learner: "Learner",
    seeds: "Sequence[int]",
    num_inputs: int,
    num_outputs: int,
    architecture: Architecture,
    *,
    num_groups: int = 1,
    curiosity: "Curiosity | None" = None,
    dtype: "torch.dtype | None" = None,
    device: str = "cpu",
) -> Policies:
    """Untrained ones, of each policy's own seed."""
    import torch

    dtype, seeds_P = dtype or torch.float32, policy_seeds(seeds, num_groups, device)
    found = Policies(
        actor=new_networks(seeds_P, num_inputs, num_outputs, architecture, dtype),
        critic=new_networks(seeds_P, num_inputs, 1, architecture, dtype, CRITIC),
        num_groups=num_groups,
        keys=noise.particle_keys(seeds_P + LEARNING, 1, 1, noise.CHOICES)[:, 0],
        updates=torch.zeros(len(seeds_P), dtype=torch.int64, device=device),
        extra=learner.extra(seeds_P, num_inputs, dtype),
    )
    if curiosity is not None and curiosity.weight:
        curiosity.begin(found, seeds_P, num_inputs, dtype)
    return found


def new_networks(
    seeds_P: "Tensor", num_inputs: int, num_outputs: int, architecture: Architecture, dtype: "torch.dtype", offset: int = 0
) -> Networks:
    """Of weights by each network's seed, and `offset`, which tells those of one seed apart."""
    sizes = [num_inputs, *architecture.hidden, num_outputs]
    return networks(sizes, seeds_P + offset, noise.WEIGHTS, dtype, architecture.activation)
