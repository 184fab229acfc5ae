"""Actors and critics of many policies as one batch of products: no policy's numbers meet another's."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.settings import Settings, setting
from workers.swarm import noise

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# P networks; B samples of each; I inputs; H hidden units; A outputs

# of which each gives 0 for 0
ACTIVATIONS = ("relu", "leaky_relu", "tanh")


@dataclass(frozen=True, kw_only=True)
class Architecture(Settings):
    """Hidden layers of actor and critic, which are alike."""

    hidden: tuple[int, ...] = setting((128, 128), low=1, help="units of the hidden layers; 2,128,128 begins with two embeddings")
    activation: str = setting("relu", choices=ACTIVATIONS)


@dataclass(slots=True)
class Networks:
    """Multilayer perceptrons, one a policy: `weights` (P, fan_in, fan_out) and `biases` (P, 1, fan_out) of each layer."""

    weights: "list[Tensor]"
    biases: "list[Tensor]"
    activation: str = "relu"

    def __call__(self, inputs: "Tensor") -> "Tensor":
        """Outputs (P, B, A) of inputs (P, B, I)."""
        if len(inputs) > 1:
            return self._outputs(inputs, self.weights, self.biases)
        # a batch of one is multiplied by another kernel, which rounds otherwise; the second one's gradients are zeros
        weights, biases = ([tensor.expand(2, -1, -1) for tensor in tensors] for tensors in (self.weights, self.biases))
        return self._outputs(inputs.expand(2, -1, -1), weights, biases)[:1]

    def _outputs(self, inputs: "Tensor", weights: "list[Tensor]", biases: "list[Tensor]") -> "Tensor":
        import torch
        from torch.nn.functional import pad

        values, act = inputs, activation(self.activation)
        # as a product, so that biases get gradients by a product: sums over an axis round by their place in memory
        ones = inputs.new_ones(inputs.shape[0], inputs.shape[1], 1)
        for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            more_in, more_out = values.shape[-1] - weight.shape[-2], added_units(weight.shape[-1])
            if more_in or more_out:
                weight, bias = pad(weight, (0, more_out, 0, more_in)), pad(bias, (0, more_out))
            values = torch.baddbmm(torch.bmm(ones, bias), values, weight)
            if number < len(weights) - 1:
                values = act(values)
        return values[..., : weights[-1].shape[-1]]

    def part(self, some: slice) -> "Networks":
        """Some of them, for gradients of their own."""
        weights, biases = ([tensor.detach()[some].requires_grad_() for tensor in tensors] for tensors in (self.weights, self.biases))
        return Networks(weights, biases, self.activation)

    def parameters(self) -> "list[Tensor]":
        """Of all layers."""
        return [*self.weights, *self.biases]


def added_units(width: int) -> int:
    """Units that stay 0, beside those of a layer: MKL's products of other widths than these round by where matrices lie in memory."""
    return 0 if width <= 4 else -width % 4


def activation(name: str) -> "Callable[[Tensor], Tensor]":
    """By its name."""
    import torch
    from torch.nn.functional import leaky_relu

    found: Callable[[Tensor], Tensor] = {"relu": torch.relu, "leaky_relu": leaky_relu, "tanh": torch.tanh}[name]
    return found


def networks(sizes: "list[int]", seeds_P: "Tensor", stream: int, dtype: "torch.dtype", activation: str = "relu") -> Networks:
    """With normal weights of variance 1 / fan_in, cut off at two deviations (LeCun), and biases of 0, of each policy's own seed."""
    import torch

    found = Networks([], [], activation)
    for layer, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:], strict=False)):
        keys = noise.particle_keys(seeds_P, 1, fan_in * fan_out, stream)[:, 0]
        u = noise.uniforms(keys, layer, 1, torch.float64)[0]
        # of the normal distribution between -2 and 2, whose deviation is 0.8796
        low, high = (0.5 * (1.0 + math.erf(end / math.sqrt(2.0))) for end in (-2.0, 2.0))
        values = math.sqrt(2.0) * torch.erfinv(2.0 * (low + u * (high - low)) - 1.0) / (0.87962566103423978 * math.sqrt(fan_in))
        found.weights.append(values.view(-1, fan_in, fan_out).to(dtype).requires_grad_())
        found.biases.append(torch.zeros(len(seeds_P), 1, fan_out, dtype=dtype, device=seeds_P.device).requires_grad_())
    return found
