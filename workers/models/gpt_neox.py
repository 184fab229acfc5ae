"""A language model as GPT-NeoX is one (Black et al., arXiv 2204.06745), of which the Pythia suite is made."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workers.errors import ConfigError
from workers.workload import Layer, Model, setting

if TYPE_CHECKING:
    from torch import nn

    from workers.layers import Law


@dataclass(frozen=True, kw_only=True)
class GptNeox(Model):
    """`depth` blocks of causal attention and a perceptron, side by side, with layer norms and biases, on `width` numbers a token.

    Rotary positions turn the first `rotary_share` of each head. Widths, heads and embeddings are as of `llama`.
    """

    reads_tokens: ClassVar[bool] = True
    bias: ClassVar[bool] = True

    width: int = setting(32, low=1)
    depth: int = setting(2, low=1, help="blocks")
    head_dim: int = setting(16, low=2, help="of the width, for each head")
    hidden: int | None = setting(None, low=1, help="units of a block; null: four times the width")
    activation: str = setting("gelu", choices=("relu", "gelu", "tanh", "erf"))
    parallel: bool = setting(True, help="attention and perceptron side by side, else one after the other")
    tied: bool = setting(False, help="the readout is the embedding's table")
    norm_epsilon: float = setting(1e-5, above=0)
    rotary_base: float = setting(10000.0, above=1)
    rotary_share: float = setting(0.25, low=0, high=1, help="of a head's numbers")
    parameterisation: str = setting("standard", choices=("standard", "ntk", "mup"))
    base_width: int = setting(32, low=1, help="mup: the width at which it is the standard one")

    def check(self) -> None:
        """Heads share the width, and some of their numbers are turned in pairs."""
        if self.width % self.head_dim:
            raise ConfigError(f"width must be a multiple of head_dim={self.head_dim}, got {self.width}")
        if self._num_turned % 2 or not self._num_turned:
            raise ConfigError(
                f"rotary_share of head_dim={self.head_dim} must be an even number of at least 2, as positions turn pairs, "
                f"got {self._num_turned} from rotary_share={self.rotary_share}"
            )

    @property
    def _num_turned(self) -> int:
        return int(self.head_dim * self.rotary_share)

    def build(self, input_shape: tuple[int, ...], num_outputs: int, seed: int) -> "nn.Module":
        """Maps tokens (N, T), below `num_outputs`, to logits (N, T, num_outputs); on the CPU in float32, initialised from `seed` alone."""
        from torch import nn

        from workers.decoder import Decoder, Embedding, Readout
        from workers.layers import Law, LayerNorm

        num_places, law = self._num_places(input_shape), Law.of(self, seed)
        embedding = Embedding(num_outputs, self.width, law)
        blocks = [part for _ in range(self.depth) for part in self._block(num_places, law)]
        blocks.append(LayerNorm(self.width, law, self.norm_epsilon))
        return Decoder(embedding, nn.Sequential(*blocks), Readout(self.width, num_outputs, law, tied=self.tied))

    def _block(self, num_places: int, law: "Law") -> "list[nn.Module]":
        from torch import nn

        from workers.decoder import CausalAttention, Rotary, TwoBranches
        from workers.layers import ACTIVATIONS, Dense, LayerNorm, Residual

        both, hidden = (True, True), self.hidden or 4 * self.width
        rotary = Rotary(num_places, self._num_turned, self.rotary_base)
        parts: list[list[nn.Module]] = [
            [CausalAttention(self.width, self.head_dim, rotary, law)],
            [Dense(self.width, hidden, law, both), ACTIVATIONS[self.activation](), Dense(hidden, self.width, law, both)],
        ]
        branches = [nn.Sequential(LayerNorm(self.width, law, self.norm_epsilon), *part) for part in parts]
        return [TwoBranches(*branches)] if self.parallel else [Residual(branch) for branch in branches]

    def layers(self, input_shape: tuple[int, ...], num_outputs: int) -> tuple[Layer, ...]:
        """The products with weights, without those of attention."""
        num_places, hidden = self._num_places(input_shape), self.hidden or 4 * self.width
        sizes = [(self.width, 3 * self.width), (self.width, self.width), (self.width, hidden), (hidden, self.width)]
        blocks = [Layer(num_places, fan_in, fan_out) for fan_in, fan_out in sizes * self.depth]
        return (*blocks, Layer(num_places, self.width, num_outputs, "readout", False))

    def _num_places(self, input_shape: tuple[int, ...]) -> int:
        if len(input_shape) != 1:
            raise ConfigError(f"a gpt_neox needs sequences of tokens (T,), got inputs of shape {input_shape}; take a data set of text")
        return input_shape[0]
