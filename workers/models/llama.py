"""A language model as Llama 2 is one (Touvron et al., arXiv 2307.09288): rotary positions, RMS norms, gated units, no biases."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.workload import Layer, Model, setting

if TYPE_CHECKING:
    from torch import nn

    from workers.layers import Law


@dataclass(frozen=True, kw_only=True)
class Llama(Model):
    """`depth` blocks of causal attention and gated units on `width` numbers a token.

    A wider network has more heads of `head_dim`, so that muP's attention is the standard one. Embeddings have variance 1, and a tied
    readout multiplies by what its own weights would have as standard deviation (see `workers.decoder.Readout`).
    """

    reads_tokens: ClassVar[bool] = True
    bias: ClassVar[bool] = False

    width: int = setting(32, low=1)
    depth: int = setting(2, low=1, help="blocks")
    head_dim: int = setting(16, low=2, help="of the width, for each head")
    hidden_ratio: float = setting(8 / 3, above=0, help="gated units of a block, over the width")
    hidden_multiple: int = setting(8, low=1, help="of which their number is rounded up to a multiple")
    num_key_heads: int | None = setting(None, low=1, help="heads that have keys and values, each for several; null: all")
    tied: bool = setting(False, help="the readout is the embedding's table")
    norm: str = setting("pre", choices=("pre", "post", "none"), help="before each part of a block, after its sum, or nowhere")
    norm_epsilon: float = setting(1e-5, above=0)
    rotary_base: float = setting(10000.0, above=1)
    parameterisation: str = setting("standard", choices=("standard", "ntk", "mup"))
    base_width: int = setting(32, low=1, help="mup: the width at which it is the standard one")

    def check(self) -> None:
        """Heads share the width, and their numbers are turned in pairs."""
        if self.width % self.head_dim:
            raise ConfigError(f"width must be a multiple of head_dim={self.head_dim}, got {self.width}")
        if self.head_dim % 2:
            raise ConfigError(f"head_dim must be even, as rotary positions turn pairs, got {self.head_dim}")
        if self.num_key_heads and self.width // self.head_dim % self.num_key_heads:
            raise ConfigError(f"num_key_heads must divide the {self.width // self.head_dim} heads, got {self.num_key_heads}")

    @property
    def hidden(self) -> int:
        """Gated units of a block."""
        # a ratio such as 8/3 is rounded, so that a whole number may come out a little above itself
        return self.hidden_multiple * math.ceil(self.hidden_ratio * self.width / self.hidden_multiple - 1e-9)

    def build(self, input_shape: tuple[int, ...], num_outputs: int, seed: int) -> "nn.Module":
        """Maps tokens (N, T), below `num_outputs`, to logits (N, T, num_outputs); on the CPU in float32, initialised from `seed` alone."""
        from torch import nn

        from workers.decoder import Decoder, Embedding, Readout, RmsNorm
        from workers.layers import Law

        num_places, law = self._num_places(input_shape), Law.of(self, seed)
        embedding = Embedding(num_outputs, self.width, law)
        blocks = [part for _ in range(self.depth) for part in self._block(num_places, law)]
        if self.norm == "pre":
            blocks.append(RmsNorm(self.width, law, self.norm_epsilon))
        return Decoder(embedding, nn.Sequential(*blocks), Readout(self.width, num_outputs, law, tied=self.tied))

    def _block(self, num_places: int, law: "Law") -> "list[nn.Module]":
        from torch import nn

        from workers.decoder import CausalAttention, RmsNorm, Rotary, SwiGlu
        from workers.layers import Residual

        # each block has tables of its own: torch.func puts the buffers of a module that stands in two places back but once
        rotary = Rotary(num_places, self.head_dim, self.rotary_base)
        attention = CausalAttention(self.width, self.head_dim, rotary, law, num_key_heads=self.num_key_heads)
        parts: list[nn.Module] = [attention, SwiGlu(self.width, self.hidden, law)]
        if self.norm == "pre":
            return [Residual(nn.Sequential(RmsNorm(self.width, law, self.norm_epsilon), part)) for part in parts]
        if self.norm == "post":
            return [nn.Sequential(Residual(part), RmsNorm(self.width, law, self.norm_epsilon)) for part in parts]
        # without norms, what the blocks add up to must not grow with their number
        return [Residual(part, share=1 / math.sqrt(2 * self.depth)) for part in parts]

    def layers(self, input_shape: tuple[int, ...], num_outputs: int) -> tuple[Layer, ...]:
        """The products with weights, without those of attention."""
        num_places, hidden = self._num_places(input_shape), self.hidden
        packed = self.width + 2 * self.head_dim * (self.num_key_heads or self.width // self.head_dim)
        sizes = [(self.width, packed), (self.width, self.width), (self.width, hidden), (self.width, hidden), (hidden, self.width)]
        blocks = [Layer(num_places, fan_in, fan_out, "", False) for fan_in, fan_out in sizes * self.depth]
        return (*blocks, Layer(num_places, self.width, num_outputs, "readout", False))

    def _num_places(self, input_shape: tuple[int, ...]) -> int:
        if len(input_shape) != 1:
            raise ConfigError(f"a llama needs sequences of tokens (T,), got inputs of shape {input_shape}; take a data set of text")
        return input_shape[0]
