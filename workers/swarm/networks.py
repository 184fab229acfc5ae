"""Actors and critics of many policies as one batch of products: no policy's numbers meet another's."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.swarm import noise

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# P policies; B samples of each; I inputs; H hidden units; A actions


@dataclass(slots=True)
class Networks:
    """Multilayer perceptrons with ReLU, one a policy: `weights` (P, fan_in, fan_out) and `biases` (P, 1, fan_out) of each layer."""

    weights: "list[Tensor]"
    biases: "list[Tensor]"

    def __call__(self, inputs: "Tensor") -> "Tensor":
        """Outputs (P, B, A) of inputs (P, B, I)."""
        import torch

        values = inputs
        for number, (weights, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = torch.baddbmm(bias, values, weights)
            if number < len(self.weights) - 1:
                values = values.relu()
        return values

    def parameters(self) -> "list[Tensor]":
        """Of all layers."""
        return [*self.weights, *self.biases]


def networks(sizes: "list[int]", seeds_P: "Tensor", stream: int, dtype: "torch.dtype") -> Networks:
    """With normal weights of variance 1 / fan_in, cut off at two deviations (LeCun), and biases of 0, of each policy's own seed."""
    import torch

    found = Networks([], [])
    for layer, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        keys = noise.particle_keys(seeds_P, 1, fan_in * fan_out, stream)[:, 0]
        u = noise.uniforms(keys, layer, 1, torch.float64)[0]
        # of the normal distribution between -2 and 2, whose deviation is 0.8796
        low, high = (0.5 * (1.0 + math.erf(end / math.sqrt(2.0))) for end in (-2.0, 2.0))
        values = math.sqrt(2.0) * torch.erfinv(2.0 * (low + u * (high - low)) - 1.0) / (0.87962566103423978 * math.sqrt(fan_in))
        found.weights.append(values.view(-1, fan_in, fan_out).to(dtype).requires_grad_())
        found.biases.append(torch.zeros(len(seeds_P), 1, fan_out, dtype=dtype, device=seeds_P.device).requires_grad_())
    return found


def sample(logits: "Tensor", keys: "Tensor", step: int) -> "Tensor":
    """Actions (...) drawn from `logits` (..., A) by the largest of them plus Gumbel's noise, of each agent's own key (...)."""
    u = noise.uniforms(keys, step, logits.shape[-1], logits.dtype).movedim(0, -1)
    return (logits - (-u.log()).log()).argmax(-1)


def explore(actions: "Tensor", keys: "Tensor", step: int, probability: float, num_actions: int) -> "Tensor":
    """With a probability any action in place of the own one, each agent for itself."""
    import torch

    if probability == 0.0:
        return actions
    u, v = noise.uniforms(keys, step, 2, torch.float32)
    return torch.where(u < probability, (v * num_actions).long().clamp_(max=num_actions - 1), actions)
