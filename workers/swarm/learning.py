"""Returns and standardised numbers, of many policies at once, each as if it were alone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# T slices; P networks; K agents of a network, of all its environments; I observed numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """What agents saw, did and got: `observations` (T, P, K, I), `actions` (T, P, K, ...), `rewards` (T, P, K), `last` (P, K, I).

    `last` is what is seen at its end. A reward stands beside the action that caused it.
    """

    observations: "Tensor"
    actions: "Tensor"
    rewards: "Tensor"
    last: "Tensor"

    @property
    def num_slices(self) -> int:
        """T."""
        return len(self.observations)

    def inputs(self) -> "Tensor":
        """(P, T K, I): the samples of a network stand together, slice by slice."""
        return self.observations.transpose(0, 1).flatten(1, 2)

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


def standardised(values_T: "Tensor") -> "Tensor":
    """Less the mean, over the deviation along the first axis; where all are equal, 0."""
    centred = values_T - mean_of_first(values_T)
    return centred / (mean_of_first(centred.square()).sqrt() + 1e-8)


def mean_of_first(values_T: "Tensor") -> "Tensor":
    """Along the first axis, one after another: a sum over an axis would round by the place of a policy in the batch."""
    total = values_T[0].clone()
    for value in values_T[1:]:
        total += value
    return total / len(values_T)
