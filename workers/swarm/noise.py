"""Normal numbers of a counter: the same for a particle and a step whoever else is in the batch, on whatever device."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# SplitMix64 (Steele, Lea, Flood 2014), as two's complement
GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64
_AGENTS = 2**20
LARGEST = math.sqrt(50.0 * math.log(2.0))
# streams of one particle
STREAMS = range(8)
TURNS, MOVES, BRIDGES, STARTS, RODS, CHOICES, EXPLORATION, WEIGHTS = STREAMS


def mix(values: "Tensor") -> "Tensor":
    """Another 64 bits for each of `values` (int64), which are overwritten."""
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        values ^= (values >> shift) & ((1 << (64 - shift)) - 1)
        values *= factor
    values ^= (values >> 31) & ((1 << 33) - 1)
    return values


def particle_keys(seeds_P: "Tensor", num_environments: int, num_agents: int, stream: int) -> "Tensor":
    """A key (P, E, N) for each agent of each environment of each policy, of its policy's seed and its own two numbers alone."""
    import torch

    device = seeds_P.device
    environment = torch.arange(num_environments, device=device)[:, None] * _AGENTS
    number = (environment + torch.arange(num_agents, device=device)) * 8 + stream
    policy = mix(seeds_P.clone() * GOLDEN)
    return mix(policy[:, None, None] + number * GOLDEN)


def uniform_bits(keys: "Tensor", first: int, count: int) -> "Tensor":
    """64 bits (count, ...) for each key and each of the counters first, first + 1, ..."""
    import torch

    counters = torch.arange(first, first + count, device=keys.device) * GOLDEN
    return mix(keys + counters.view(-1, *[1] * keys.dim()))


def later(keys: "Tensor", steps: "Tensor") -> "Tensor":
    """Keys whose step 0 is the step `steps` of `keys`, each its own."""
    return keys + steps * _AGENTS * GOLDEN


def normals(keys: "Tensor", step: int, count: int, dtype: "torch.dtype") -> "Tensor":
    """Standard normal numbers (count, ...) for each key at a step, by pairs (Box and Muller); none is beyond LARGEST."""
    import torch

    pairs = (count + 1) // 2
    bits = uniform_bits(keys, step * _AGENTS, pairs)
    radius = _uniform(bits >> 40, dtype).log_().mul_(-2.0).sqrt_()
    angle = (bits & 0xFFFFFFFF).to(dtype).mul_(2.0 * math.pi * 2.0**-32)
    found = torch.empty((2 * pairs, *keys.shape), dtype=radius.dtype, device=keys.device)
    torch.mul(radius, angle.cos(), out=found[:pairs])
    torch.mul(radius, angle.sin_(), out=found[pairs:])
    return found[:count]


def uniforms(keys: "Tensor", step: int, count: int, dtype: "torch.dtype") -> "Tensor":
    """Numbers (count, ...) above 0 and below 1."""
    return _uniform(uniform_bits(keys, step * _AGENTS, count) >> 40, dtype)


def _uniform(signed: "Tensor", dtype: "torch.dtype") -> "Tensor":
    """Of 24 bits with a sign; in two sums, which single precision keeps apart from 0, and apart from 1, which the last would round to."""
    return signed.to(dtype).mul_(2.0**-24).add_(0.5).add_(2.0**-25).clamp_(max=1.0 - 2.0**-24)
