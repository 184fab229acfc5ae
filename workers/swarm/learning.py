"""Returns and the loss of policy gradient, of many policies at once."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# T slices; P policies; K agents of a policy, of all its environments; A actions


@dataclass(frozen=True, slots=True, kw_only=True)
class Episode:
    """What agents saw, did and got: `observations` (T, P, K, I), `actions` and `rewards` (T, P, K), and `last` (P, K, I), seen at its end.

    A reward stands beside the action that caused it.
    """

    observations: "Tensor"
    actions: "Tensor"
    rewards: "Tensor"
    last: "Tensor"


def returns(rewards_T: "Tensor", discount: float, last: "Tensor | None" = None) -> "Tensor":
    """G_t = sum_k discount^(k - t) r_k (T, ...), and discount^(T - t) times the value `last` (...) of what comes after."""
    import torch

    found, value = torch.empty_like(rewards_T), torch.zeros_like(rewards_T[0]) if last is None else last
    for step in range(len(rewards_T) - 1, -1, -1):
        value = rewards_T[step] + discount * value
        found[step] = value
    return found


def standardised(values_T: "Tensor", dims: tuple[int, ...] = (0,)) -> "Tensor":
    """Less the mean, over the deviation along `dims`; where all are equal, 0."""
    centred = values_T - values_T.mean(dims, keepdim=True)
    return centred / (centred.square().mean(dims, keepdim=True).sqrt() + 1e-8)


def policy_gradient(logits: "Tensor", values: "Tensor", actions: "Tensor", targets: "Tensor") -> "Tensor":
    """Of logits (T, P, K, A), values, actions and returns (T, P, K): the sum over policies of means over agents of sums over time.

    -log pi(a_t) (G_t - V_t) with V as it is, and Huber's loss of V to G.
    """
    import torch
    from torch.nn.functional import huber_loss

    log_probabilities = torch.log_softmax(logits, -1).gather(-1, actions[..., None])[..., 0]
    actor = -(log_probabilities * (targets - values.detach())).sum(0).mean(-1)
    critic = huber_loss(values, targets, reduction="none").sum(0).mean(-1)
    return (actor + critic).sum()
