"""A small convolutional network for images."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.workload import Layer, Model, setting

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Cnn(Model):
    """`depth` stages of a 3 x 3 convolution, an activation and 2 x 2 pooling, then a linear readout.

    The first stage has `width` filters and each further one twice as many.
    """

    width: int = setting(8, low=1, help="filters of the first stage")
    depth: int = setting(2, low=1, help="stages, each halves the image")
    activation: str = setting("relu", choices=("relu", "gelu", "tanh", "erf"))
    bias: bool = True
    parameterisation: str = setting("standard", choices=("standard", "ntk", "mup"))
    pooling: str = setting("average", choices=("average", "max"))
    input_pooling: int = setting(1, low=1, help="the image is first averaged over squares of that side")
    readout: str = setting("flatten", choices=("flatten", "mean"), help="of all pixels of the last stage, or of their mean")
    base_width: int = setting(8, low=1, added=True, help="mup: the width at which it is the standard one")

    def build(self, input_shape: tuple[int, ...], num_outputs: int, seed: int) -> "nn.Module":
        """Maps (N, channels, H, W) to (N, num_outputs); on the CPU in float32, initialised from `seed` alone."""
        from torch import nn

        from workers.layers import ACTIVATIONS, Conv, Dense, Law

        channels, height, width = self._image(input_shape)
        law = Law.of(self, seed)
        layers: list[nn.Module] = [nn.AvgPool2d(self.input_pooling)] if self.input_pooling > 1 else []
        for stage in range(self.depth):
            num_filters = self.width * 2**stage
            layers += [Conv(channels, num_filters, law, (stage > 0, True)), ACTIVATIONS[self.activation]()]
            layers += [nn.AvgPool2d(2) if self.pooling == "average" else nn.MaxPool2d(2)]
            channels, height, width = num_filters, height // 2, width // 2
        if self.readout == "mean":
            layers, height, width = [*layers, nn.AdaptiveAvgPool2d(1)], 1, 1
        return nn.Sequential(*layers, nn.Flatten(), Dense(channels * height * width, num_outputs, law, (True, False)))

    def layers(self, input_shape: tuple[int, ...], num_outputs: int) -> tuple[Layer, ...]:
        """The convolutions, and the readout."""
        channels, height, width = self._image(input_shape)
        found = []
        for stage in range(self.depth):
            num_filters, is_last = self.width * 2**stage, stage == self.depth - 1
            role = "separable" if is_last and self.readout == "mean" else ""
            found.append(Layer(height * width, 9 * channels, num_filters, role, self.bias))
            channels, height, width = num_filters, height // 2, width // 2
        pixels = 1 if self.readout == "mean" else height * width
        return (*found, Layer(1, channels * pixels, num_outputs, "readout", self.bias))

    def _image(self, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
        smallest = self.input_pooling * 2**self.depth
        if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
            raise ConfigError(
                f"a cnn of depth {self.depth} needs images (channels, H, W) of at least {smallest} pixels a side, got {input_shape}; "
                "take a smaller depth or input_pooling, or model=mlp"
            )
        return input_shape[0], input_shape[1] // self.input_pooling, input_shape[2] // self.input_pooling
