"""Layers with a stated parameterisation (D8), from which the models are built."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch  # noqa: TID253  (imported by the models' `build` alone)
from torch import Tensor, nn  # noqa: TID253
from torch.nn import functional  # noqa: TID253

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "erf": lambda: Erf()}


@dataclass(frozen=True, slots=True)
class Law:
    """How the layers of a network are initialised: "standard" or "ntk", with or without biases, from one stream of draws."""

    parameterisation: str
    bias: bool
    generator: torch.Generator

    def multiplier(self, fan_in: int) -> float:
        """What the inputs of a layer are multiplied by."""
        return 1.0 / math.sqrt(fan_in) if self.parameterisation == "ntk" else 1.0

    def weight(self, shape: tuple[int, ...], fan_in: int) -> nn.Parameter:
        """Normal draws of variance 1 / fan_in, or 1 under the multiplier of "ntk"."""
        draws = torch.randn(shape, generator=self.generator)
        return nn.Parameter(draws if self.parameterisation == "ntk" else draws / math.sqrt(fan_in))

    def zeros(self, size: int) -> nn.Parameter | None:
        """The biases, where there are any."""
        return nn.Parameter(torch.zeros(size)) if self.bias else None


class Erf(nn.Module):
    """The error function, whose kernels have closed forms."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.erf(inputs)


class Dense(nn.Module):
    """A linear layer (N, fan_in) -> (N, fan_out).

    "standard": LeCun's normal initialisation, variance 1 / fan_in. "ntk": N(0, 1), and the input is multiplied by 1 / sqrt(fan_in).
    Both are one function at initialisation for equal draws. Biases begin at zero and have no multiplier.
    """

    def __init__(self, fan_in: int, fan_out: int, law: Law) -> None:
        super().__init__()
        self.multiplier = law.multiplier(fan_in)
        self.weight = law.weight((fan_out, fan_in), fan_in)
        self.bias = law.zeros(fan_out)

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(_times(inputs, self.multiplier), self.weight, self.bias)


class Conv(nn.Module):
    """A 3 x 3 convolution (N, channels, H, W) that keeps H and W; initialised as `Dense`, with fan_in = 9 channels."""

    def __init__(self, channels: int, num_filters: int, law: Law) -> None:
        super().__init__()
        fan_in = 9 * channels
        self.multiplier = law.multiplier(fan_in)
        self.weight = law.weight((num_filters, channels, 3, 3), fan_in)
        self.bias = law.zeros(num_filters)

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.conv2d(_times(inputs, self.multiplier), self.weight, self.bias, padding=1)


def _times(inputs: Tensor, multiplier: float) -> Tensor:
    return inputs if multiplier == 1.0 else inputs * multiplier
