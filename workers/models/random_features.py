"""Random features: a fixed random layer, and a readout that alone is trained."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.workload import Layer, Model, setting

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class RandomFeatures(Model):
    """A linear readout of `width` features phi(W x + b) with fixed normal W and b (Rahimi and Recht, 2007).

    Its kernel is the features' at every step: phi phi^T, plus 1 with a bias of the readout, which the ntk parameterisation divides by the
    width. W and b are in snapshots, and neither counted as parameters nor given to the optimiser.
    """

    width: int = setting(64, low=1, help="features")
    activation: str = setting("relu", choices=("relu", "gelu", "tanh", "erf"))
    feature_bias: float = setting(0.0, low=0, help="standard deviation of the features' fixed biases")
    bias: bool = setting(True, help="of the readout, trained")
    parameterisation: str = setting("standard", choices=("standard", "ntk"))

    @property
    def base_width(self) -> int:
        """There is no muP of features that do not learn."""
        return self.width

    def build(self, input_shape: tuple[int, ...], num_outputs: int, seed: int) -> "nn.Module":
        """Maps (N, *input_shape) to (N, num_outputs); on the CPU in float32, initialised from `seed` alone."""
        from torch import nn

        from workers.layers import ACTIVATIONS, Dense, FixedDense, Law

        law = Law.of(self, seed)
        features = FixedDense(math.prod(input_shape), self.width, law, bias=self.feature_bias)
        readout = Dense(self.width, num_outputs, law, (True, False))
        return nn.Sequential(nn.Flatten(), features, ACTIVATIONS[self.activation](), readout)

    def layers(self, input_shape: tuple[int, ...], num_outputs: int) -> tuple[Layer, ...]:
        """The readout: the features have no part in the kernel."""
        return (Layer(1, self.width, num_outputs, "readout", self.bias),)
