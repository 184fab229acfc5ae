"""A wide residual network for images (Zagoruyko and Komodakis, arXiv 1605.07146), with batch normalisation or without any."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.workload import Layer, Model, setting

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class WideResnet(Model):
    """A 3 x 3 convolution, `num_groups` groups of `depth` residual blocks, the mean over pixels, and a linear readout.

    Blocks are in the order normalisation, activation, convolution, twice. The first convolution and the first group have `width` filters,
    each further group twice as many on images of half the side. Without normalisation each block's branch is divided by the square root of
    the number of blocks, so that what it adds stays bounded at any depth. The paper's WRN-28-10: width 160, depth 4.
    """

    width: int = setting(16, low=1, help="filters of the first group")
    depth: int = setting(1, low=1, help="residual blocks of a group")
    num_groups: int = setting(3, low=1, help="each further one halves the image")
    normalisation: str = setting("none", choices=("none", "batch"))
    activation: str = setting("relu", choices=("relu", "gelu", "tanh", "erf"))
    bias: bool = setting(False, help="of the convolutions; the readout has one")
    parameterisation: str = setting("standard", choices=("standard", "ntk", "mup"))
    base_width: int = setting(16, low=1, help="mup: the width at which it is the standard one")

    @property
    def mixes_samples(self) -> bool:
        """With batch normalisation, in training."""
        return self.normalisation == "batch"

    def build(self, input_shape: tuple[int, ...], num_outputs: int, seed: int) -> "nn.Module":
        """Maps (N, channels, H, W) to (N, num_outputs); on the CPU in float32, initialised from `seed` alone."""
        from torch import nn

        from workers.layers import ACTIVATIONS, BatchNorm, Conv, Dense, Law, Residual

        self._check(input_shape)
        law = Law.of(self, seed)

        def before(size: int) -> list[nn.Module]:
            return [*([BatchNorm(size, law)] if self.mixes_samples else []), ACTIVATIONS[self.activation]()]

        layers: list[nn.Module] = [Conv(input_shape[0], self.width, law, (False, True))]
        channels = self.width
        share = 1.0 if self.mixes_samples else (self.num_groups * self.depth) ** -0.5
        for group in range(self.num_groups):
            num_filters = self.width * 2**group
            for block in range(self.depth):
                stride = 2 if group and not block else 1
                first = Conv(channels, num_filters, law, (True, True), stride=stride)
                branch = nn.Sequential(*before(channels), first, *before(num_filters), Conv(num_filters, num_filters, law, (True, True)))
                is_new = stride > 1 or channels != num_filters
                skip = Conv(channels, num_filters, law, (True, True), kernel=1, stride=stride) if is_new else None
                layers.append(Residual(branch, skip, share))
                channels = num_filters
        readout = Dense(channels, num_outputs, replace(law, bias=True), (True, False))
        return nn.Sequential(*layers, *before(channels), nn.AdaptiveAvgPool2d(1), nn.Flatten(), readout)

    def layers(self, input_shape: tuple[int, ...], num_outputs: int) -> tuple[Layer, ...]:
        """The convolutions, those of the skips too, and the readout."""
        self._check(input_shape)
        channels, (height, width) = self.width, input_shape[1:]
        found = [Layer(height * width, 9 * input_shape[0], channels, "", self.bias)]
        for group in range(self.num_groups):
            num_filters = self.width * 2**group
            for block in range(self.depth):
                if group and not block:
                    height, width = -(-height // 2), -(-width // 2)
                if channels != num_filters:
                    found.append(Layer(height * width, channels, num_filters, "", self.bias))
                found += [Layer(height * width, 9 * size, num_filters, "", self.bias) for size in (channels, num_filters)]
                channels = num_filters
        return (*found, Layer(1, channels, num_outputs, "readout"))

    def _check(self, input_shape: tuple[int, ...]) -> None:
        smallest = 2 ** (self.num_groups - 1)
        if len(input_shape) != 3 or min(input_shape[1:]) < smallest:
            raise ConfigError(
                f"a wide_resnet of {self.num_groups} groups needs images (channels, H, W) of at least {smallest} pixels a side, "
                f"got {input_shape}; take a smaller num_groups, or model=mlp"
            )
