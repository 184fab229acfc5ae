"""A vision transformer (Dosovitskiy et al., arXiv 2010.11929) on the patches of an image, without a class token."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workers.errors import ConfigError
from workers.workload import Layer, Model, setting

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Vit(Model):
    """Patches with learned positions, `depth` blocks of attention and a perceptron, the mean over patches, and a linear readout.

    Layers are normalised before each part of a block, and before the readout. A wider network has more heads of `head_dim`, so that
    muP's attention is the standard one.
    """

    width: int = setting(32, low=1)
    depth: int = setting(2, low=1, help="blocks")
    patch_size: int = setting(4, low=1, help="pixels of a side")
    head_dim: int = setting(16, low=1, help="of the width, for each head")
    hidden_ratio: int = setting(4, low=1, help="hidden units of a block, over the width")
    activation: str = setting("gelu", choices=("relu", "gelu", "tanh", "erf"))
    bias: bool = True
    parameterisation: str = setting("standard", choices=("standard", "ntk", "mup"))
    base_width: int = setting(32, low=1, help="mup: the width at which it is the standard one")

    def check(self) -> None:
        """Heads share the width."""
        if self.width % self.head_dim:
            raise ConfigError(f"width must be a multiple of head_dim={self.head_dim}, got {self.width}")

    def build(self, input_shape: tuple[int, ...], num_outputs: int, seed: int) -> "nn.Module":
        """Maps (N, channels, H, W) to (N, num_outputs); on the CPU in float32, initialised from `seed` alone."""
        from torch import nn

        from workers.layers import ACTIVATIONS, Attention, Dense, Law, LayerNorm, Mean, Patches, Positions, Residual

        num_patches, patch = self._patches(input_shape)
        law, both = Law.of(self, seed), (True, True)
        hidden = self.hidden_ratio * self.width
        layers: list[nn.Module] = [Patches(self.patch_size), Dense(patch, self.width, law, (False, True))]
        layers.append(Positions(num_patches, self.width, law))
        for _ in range(self.depth):
            attention = nn.Sequential(LayerNorm(self.width, law), Attention(self.width, self.head_dim, law))
            units = [Dense(self.width, hidden, law, both), ACTIVATIONS[self.activation](), Dense(hidden, self.width, law, both)]
            layers += [Residual(attention), Residual(nn.Sequential(LayerNorm(self.width, law), *units))]
        return nn.Sequential(*layers, LayerNorm(self.width, law), Mean(), Dense(self.width, num_outputs, law, (True, False)))

    def layers(self, input_shape: tuple[int, ...], num_outputs: int) -> tuple[Layer, ...]:
        """The products with weights, without those of attention."""
        num_patches, patch = self._patches(input_shape)
        hidden = self.hidden_ratio * self.width
        sizes = [(self.width, 3 * self.width), (self.width, self.width), (self.width, hidden), (hidden, self.width)]
        blocks = [Layer(num_patches, fan_in, fan_out, "", self.bias) for fan_in, fan_out in sizes * self.depth]
        first = Layer(num_patches, patch, self.width, "", self.bias)
        return (first, *blocks, Layer(1, self.width, num_outputs, "readout", self.bias))

    def _patches(self, input_shape: tuple[int, ...]) -> tuple[int, int]:
        """How many there are, and the numbers of each."""
        if len(input_shape) != 3 or any(side % self.patch_size for side in input_shape[1:]):
            raise ConfigError(
                f"a vit needs images (channels, H, W) whose sides are multiples of patch_size={self.patch_size}, got {input_shape}"
            )
        channels, height, width = input_shape
        return height * width // self.patch_size**2, channels * self.patch_size**2
