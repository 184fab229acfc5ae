"""A multi-layer perceptron on flattened inputs."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.workload import Layer, Model, setting

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Mlp(Model):
    """`depth` hidden layers of `width` units and a linear readout; parameterisations are those of `workers.layers.Law`."""

    width: int = setting(32, low=1)
    depth: int = setting(1, low=0, help="hidden layers; 0: linear in the inputs")
    activation: str = setting("relu", choices=("relu", "gelu", "tanh", "erf"))
    bias: bool = True
    parameterisation: str = setting("standard", choices=("standard", "ntk", "mup"))
    base_width: int = setting(32, low=1, added=True, help="mup: the width at which it is the standard one")

    def build(self, input_shape: tuple[int, ...], num_outputs: int, seed: int) -> "nn.Module":
        """Maps (N, *input_shape) to (N, num_outputs); on the CPU in float32, initialised from `seed` alone."""
        from torch import nn

        from workers.layers import ACTIVATIONS, Dense, Law

        law = Law.of(self, seed)
        sizes = [math.prod(input_shape), *[self.width] * self.depth, num_outputs]
        layers: list[nn.Module] = [nn.Flatten()]
        for index, (fan_in, fan_out) in enumerate(zip(sizes, sizes[1:])):
            layers += [Dense(fan_in, fan_out, law, (index > 0, index < self.depth)), ACTIVATIONS[self.activation]()]
        return nn.Sequential(*layers[:-1])

    def layers(self, input_shape: tuple[int, ...], num_outputs: int) -> tuple[Layer, ...]:
        """One for each product."""
        sizes = [math.prod(input_shape), *[self.width] * self.depth, num_outputs]
        roles = [*[""] * (self.depth - 1), *["separable"] * (self.depth > 0), "readout"]
        return tuple(Layer(1, fan_in, fan_out, role, self.bias) for fan_in, fan_out, role in zip(sizes, sizes[1:], roles))
