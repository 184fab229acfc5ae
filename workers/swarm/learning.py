"""Returns, advantages and minibatches, of many policies at once, each as if it were alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import noise

if TYPE_CHECKING:
    from torch import Tensor

# T slices; P networks; K agents of a network, of all its environments; I observed numbers; B samples of a network, T K of an episode

MAX_EPOCHS = 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """What agents saw, did and got: `observations` (T, P, K, I), `actions` (T, P, K, ...), `rewards` (T, P, K), `last` (P, K, I).

    `last` is what is seen at its end. A reward stands beside the action that caused it.
    """

    observations: "Tensor"
    actions: "Tensor"
    rewards: "Tensor"
    last: "Tensor"

    def part(self, some: slice) -> "Episode":
        """Of some networks."""
        observations, actions, rewards = (values[:, some] for values in (self.observations, self.actions, self.rewards))
        return Episode(observations=observations, actions=actions, rewards=rewards, last=self.last[some])

    @property
    def num_slices(self) -> int:
        """T."""
        return len(self.observations)

    def inputs(self) -> "Tensor":
        """Observations as samples (P, T K, I)."""
        return self.by_sample(self.observations)

    @staticmethod
    def by_sample(values_T: "Tensor") -> "Tensor":
        """(P, T K, ...) of (T, P, K, ...): the samples of a network stand together, slice by slice."""
        return values_T.transpose(0, 1).flatten(1, 2)

    def by_time(self, values: "Tensor") -> "Tensor":
        """(T, P, K, ...) of (P, T K, ...), as `inputs` has them."""
        return values.view(len(values), self.num_slices, -1, *values.shape[2:]).transpose(0, 1)


def returns(rewards_T: "Tensor", discount: float, last: "Tensor | None" = None) -> "Tensor":
    """G_t = sum_k discount^(k - t) r_k (T, ...), and discount^(T - t) times the value `last` (...) of what comes after."""
    import torch

    found, value = torch.empty_like(rewards_T), torch.zeros_like(rewards_T[0]) if last is None else last
    for step in range(len(rewards_T) - 1, -1, -1):
        value = rewards_T[step] + discount * value
        found[step] = value
    return found


def advantages(rewards_T: "Tensor", values_T: "Tensor", last: "Tensor", discount: float, decay: float) -> "Tensor":
    """sum_k (discount decay)^k delta_(t + k) (T, ...), delta_t = r_t + discount V_(t + 1) - V_t (Schulman et al. 2016, equation 16).

    `values_T` (T, ...) are V of what was seen, `last` (...) is V of what comes after: an episode that is cut off goes on.
    """
    import torch

    deltas_T = rewards_T + discount * torch.cat([values_T[1:], last[None]]) - values_T
    return returns(deltas_T, discount * decay)


def standardised(values_T: "Tensor") -> "Tensor":
    """Less the mean, over the deviation along the first axis; where all are equal, 0."""
    centred = values_T - mean_of_first(values_T)
    return centred / (mean_of_first(centred.square()).sqrt() + 1e-8)


def standardised_samples(values_PB: "Tensor") -> "Tensor":
    """Of each network by itself, less the mean over the deviation of its samples; where all are equal, 0."""
    centred = values_PB - values_PB.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True).sqrt() + 1e-8)


def minibatches(keys_P: "Tensor", updates_P: "Tensor", epoch: int, num_samples: int, num_minibatches: int) -> "list[Tensor]":
    """Places (P, b) of samples: each network's own permutation of all of them for this update and epoch, in parts of nearly equal size."""
    steps = updates_P * MAX_EPOCHS + epoch
    permutation = noise.uniform_bits(noise.later(keys_P, steps), 0, num_samples).T.contiguous().argsort(-1)
    return list(permutation.tensor_split(num_minibatches, 1))


def taken(values_PB: "Tensor", places: "Tensor") -> "Tensor":
    """Values (P, b, ...) of samples (P, B, ...) at `places` (P, b)."""
    import torch

    return values_PB[torch.arange(len(places), device=places.device)[:, None], places]


def shortened(gradients: "Sequence[Tensor]", max_norm: float) -> "list[Tensor]":
    """Gradients (P, ...) of all weights of each network, so that together they are no longer than `max_norm` (Pascanu et al. 2013)."""
    squares = sum(gradient.flatten(1).square().sum(-1) for gradient in gradients)
    factors = (max_norm / (squares.sqrt() + 1e-6)).clamp(max=1.0)  # type: ignore[union-attr]
    return [gradient * factors[:, None, None] for gradient in gradients]


def mean_of_first(values_T: "Tensor") -> "Tensor":
    """Along the first axis, one after another: a sum over an axis would round by the place of a policy in the batch."""
    total = values_T[0].clone()
    for value in values_T[1:]:
        total += value
    return total / len(values_T)
