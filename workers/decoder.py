"""The layers of language models that decode from left to right: embeddings, rotary positions, causal attention, gated units."""

import math
from typing import Any

import torch  # noqa: TID253  (imported by the models' `build` alone)
from torch import Tensor, nn  # noqa: TID253
from torch.nn import functional  # noqa: TID253

from workers.errors import ConfigError
from workers.layers import Dense, Law

# N sequences; T tokens; H heads, of which K have keys and values; D numbers of a head; V tokens that there are


class Embedding(nn.Module):
    """Tokens (N, T) of a vocabulary to vectors (N, T, width): the table is a weight of fan_in 1."""

    embeds = True

    def __init__(self, vocabulary: int, width: int, law: Law) -> None:
        super().__init__()
        self.rates = law.rates((False, True))
        self.weight = law.weight((vocabulary, width), 1, (False, True))

    def forward(self, tokens_NT: Tensor) -> Tensor:
        return functional.embedding(tokens_NT, self.weight)


class Readout(nn.Module):
    """Vectors (N, T, width) to logits (N, T, V), without biases, by weights of its own or, `tied`, by the table of the embedding.

    Tied, the weights are the embedding's, of variance 1, and the inputs are multiplied so that logits are what weights of their own would
    give. Under muP both are then as table 8 has them: an input and a readout have weights of width-free variance, and equal rates.
    """

    embeds = True

    def __init__(self, width: int, vocabulary: int, law: Law, *, tied: bool) -> None:
        super().__init__()
        grows = (True, False)
        self.rates = law.rates(grows)
        # tied, it has no weights that could learn while the embedding's do not
        self.is_readout = not tied
        self.multiplier = law.multiplier_of_unit_weights(width, grows) if tied else law.multiplier(width, grows)
        self.weight = None if tied else law.weight((vocabulary, width), width, grows)

    def forward(self, inputs: Tensor, table: Tensor) -> Tensor:
        scaled = inputs if self.multiplier == 1.0 else inputs * self.multiplier
        return functional.linear(scaled, table if self.weight is None else self.weight)


class RmsNorm(nn.RMSNorm):
    """The last axis, of `size` units that are more in a wider network, over its root mean square (Zhang and Sennrich, 2019)."""

    def __init__(self, size: int, law: Law, eps: float = 1e-5) -> None:
        super().__init__(size, eps)
        self.rates = law.rates((False, True))


class Rotary(nn.Module):
    """Turns the pairs (d, d + num / 2) of the first `num` numbers of each head (N, T, heads, D) by t / base^(2 d / num) at place t.

    Su et al., arXiv 2104.09864, with the pairs of GPT-NeoX. The tables are no weights, and rounded from float64 to the module's precision.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, num_places: int, num: int, base: float = 10000.0) -> None:
        super().__init__()
        self.num_places, self.num, self.base = num_places, num, base
        self.make_tables(torch.get_default_dtype(), torch.get_default_device())

    def forward(self, heads: Tensor) -> Tensor:
        num_places = heads.shape[1]
        if num_places > self.num_places:
            raise ConfigError(f"sequences must have at most {self.num_places} tokens, as the model was built for, got {num_places}")
        cosines, sines = self.cosines[:num_places], self.sines[:num_places]
        if self.num == heads.shape[-1]:
            return _turned(heads, cosines, sines)
        turned, rest = heads.split((self.num, heads.shape[-1] - self.num), dim=-1)
        return torch.cat((_turned(turned, cosines, sines), rest), dim=-1)

    def make_tables(self, dtype: torch.dtype, device: torch.device | str) -> None:
        """(T, 1, num) each; the sines of the first half are negative."""
        half = torch.arange(0, self.num, 2, dtype=torch.float64, device=device) / self.num
        angles = torch.arange(self.num_places, dtype=torch.float64, device=device)[:, None, None] / self.base**half
        sines = angles.sin()
        self.register_buffer("cosines", torch.cat((angles, angles), dim=-1).cos().to(dtype), persistent=False)
        self.register_buffer("sines", torch.cat((-sines, sines), dim=-1).to(dtype), persistent=False)

    def _apply(self, fn: Any, recurse: bool = True) -> "Rotary":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.make_tables(self.cosines.dtype, self.cosines.device)
        return self


def _turned(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    return torch.addcmul(heads * cosines, heads.roll(heads.shape[-1] // 2, -1), sines)


def causal_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Softmax attention (N, H, T, D) of each place to those up to it; keys and values (N, K, T, D), each for H / K heads.

    By torch's kernel, and by plain products where that has no derivative: within torch.func's transforms and forward derivatives. A
    second backward pass needs `torch.nn.attention.sdpa_kernel(SDPBackend.MATH)` around the first.
    """
    if keys.shape[1] != queries.shape[1]:
        keys, values = (one.repeat_interleave(queries.shape[1] // keys.shape[1], dim=1) for one in (keys, values))
    if not torch._C._are_functorch_transforms_active():
        try:
            return functional.scaled_dot_product_attention(queries, keys, values, is_causal=True)
        except NotImplementedError:  # dual numbers
            pass
    scores = queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ values


class CausalAttention(nn.Module):
    """Heads of `head_dim` (N, T, width) with rotary positions; `num_key_heads` of them have keys and values, None: all."""

    def __init__(self, width: int, head_dim: int, rotary: Rotary, law: Law, *, num_key_heads: int | None = None) -> None:
        super().__init__()
        self.head_dim, self.num_heads = head_dim, width // head_dim
        self.num_key_heads = num_key_heads or self.num_heads
        self.rotary = rotary
        self.queries_keys_values = Dense(width, (self.num_heads + 2 * self.num_key_heads) * head_dim, law, (True, True))
        self.output = Dense(width, width, law, (True, True))

    def forward(self, inputs: Tensor) -> Tensor:
        heads = self.queries_keys_values(inputs).unflatten(-1, (-1, self.head_dim))
        turned, values = heads.split((self.num_heads + self.num_key_heads, self.num_key_heads), dim=2)
        queries, keys = self.rotary(turned).split((self.num_heads, self.num_key_heads), dim=2)
        attended = causal_attention(queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2))
        return self.output(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class SwiGlu(nn.Module):
    """out(silu(gate(x)) inside(x)) with `hidden` units (Shazeer, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, law: Law) -> None:
        super().__init__()
        # one matrix for both would need copies of their gradients put together: 2 % of a step
        self.gate, self.inside = (Dense(width, hidden, law, (True, True)) for _ in range(2))
        self.output = Dense(hidden, width, law, (True, True))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.output(functional.silu(self.gate(inputs)) * self.inside(inputs))  # type: ignore[no-any-return]


class TwoBranches(nn.Module):
    """x + first(x) + second(x): attention and units side by side."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.first(inputs) + self.second(inputs)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Tokens (N, T) to logits (N, T, V): the embedding, blocks of (N, T, width), and the readout."""

    def __init__(self, embedding: Embedding, blocks: nn.Sequential, readout: Readout) -> None:
        super().__init__()
        self.embedding, self.blocks, self.readout = embedding, blocks, readout

    def forward(self, tokens_NT: Tensor) -> Tensor:
        return self.readout(self.blocks(self.embedding(tokens_NT)), self.embedding.weight)  # type: ignore[no-any-return]
