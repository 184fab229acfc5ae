"""Layers with a stated parameterisation (D8), from which the models are built."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch  # noqa: TID253  (imported by the models' `build` alone)
from torch import Tensor, nn  # noqa: TID253
from torch.nn import functional  # noqa: TID253

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh, "erf": lambda: Erf()}


@dataclass(frozen=True, slots=True)
class Law:
    """How the layers of a network are initialised and learn, with or without biases, from one stream of draws.

    "standard": variance 1 / fan_in, LeCun's. "ntk": variance 1, and inputs are multiplied by 1 / sqrt(fan_in), which is the same function.
    "mup" (Yang et al., arXiv 2203.03466, table 8): as "standard" at `growth` 1, the width over that of the base model; the readout keeps
    the base model's variance under a multiplier 1 / growth, and learning rates follow the width as `rates` says.
    """

    parameterisation: str
    bias: bool
    generator: torch.Generator
    growth: float = 1.0

    @classmethod
    def of(cls, model: Any, seed: int) -> Self:
        """That of a model's settings `parameterisation`, `bias`, `width` and `base_width`."""
        return cls(model.parameterisation, model.bias, torch.Generator().manual_seed(seed), model.width / model.base_width)

    def multiplier(self, fan_in: int, grows: tuple[bool, bool]) -> float:
        """What the inputs of a layer are multiplied by; `grows`: whether its inputs and its outputs are more in a wider network."""
        if self.parameterisation == "ntk":
            return 1.0 / math.sqrt(fan_in)
        return 1.0 / self._growth_of_readout(grows)

    def weight(self, shape: tuple[int, ...], fan_in: int, grows: tuple[bool, bool]) -> nn.Parameter:
        """Normal draws."""
        return nn.Parameter(torch.randn(shape, generator=self.generator) / self._narrowing(fan_in, grows))

    def multiplier_of_unit_weights(self, fan_in: int, grows: tuple[bool, bool]) -> float:
        """What the inputs of a layer are multiplied by whose weights have variance 1, as it shares them with another."""
        return self.multiplier(fan_in, grows) / self._narrowing(fan_in, grows)

    def _narrowing(self, fan_in: int, grows: tuple[bool, bool]) -> float:
        """One over the standard deviation of the weights."""
        return 1.0 if self.parameterisation == "ntk" else math.sqrt(fan_in / self._growth_of_readout(grows))

    def _growth_of_readout(self, grows: tuple[bool, bool]) -> float:
        return self.growth if self.parameterisation == "mup" and grows == (True, False) else 1.0

    def zeros(self, size: int) -> nn.Parameter | None:
        """The biases, where there are any."""
        return nn.Parameter(torch.zeros(size)) if self.bias else None

    def rates(self, grows: tuple[bool, bool]) -> "Rates":
        """Factors of the learning rate of a layer's weights and biases."""
        if self.parameterisation != "mup":
            return Rates()
        ins, outs = grows
        return Rates(
            weight=(self.growth if ins != outs else 1.0, 1.0 / self.growth if ins and outs else 1.0),
            bias=(self.growth if outs else 1.0, 1.0),
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """Factors of the learning rate for gradients as they are, and for gradients of which only the signs and ratios count (Adam's)."""

    weight: tuple[float, float] = (1.0, 1.0)
    bias: tuple[float, float] = (1.0, 1.0)


def parameter_groups(module: nn.Module, *, normalised: bool, split_hidden: bool = False) -> list[dict[str, Any]]:
    """All parameters, in groups of one factor of the learning rate, `rate_factor`; `normalised`: of an optimiser such as Adam.

    `split_hidden`: matrices between layers whose inputs and outputs both grow with the width stand in groups of their own, with `hidden`.
    """
    kinds: dict[nn.Parameter, tuple[float, bool]] = {}
    for layer in module.modules():
        rates, is_hidden = getattr(layer, "rates", Rates()), split_hidden and getattr(layer, "is_hidden", False)
        for name, parameter in layer.named_parameters(recurse=False):
            kinds.setdefault(parameter, (getattr(rates, name, (1.0, 1.0))[normalised], is_hidden and parameter.dim() == 2))
    return [
        {"params": [parameter for parameter, own in kinds.items() if own == kind], "rate_factor": kind[0], "hidden": kind[1]}
        for kind in dict.fromkeys(kinds.values())
    ]


def rate_factors(module: nn.Module, *, normalised: bool) -> dict[str, float]:
    """Factor of the learning rate of each trained parameter by its name, those that are not 1: J diag(factors) J^T drives training (D8)."""
    factors = {weights: group["rate_factor"] for group in parameter_groups(module, normalised=normalised) for weights in group["params"]}
    return {name: factors[weights] for name, weights in module.named_parameters() if weights.requires_grad and factors[weights] != 1.0}


def num_params(module: nn.Module) -> tuple[int, int]:
    """Parameters, and those that are in no layer with `embeds`: of tokens, of positions, and of the readout of a vocabulary (D7)."""
    embedding = {weights for layer in module.modules() if getattr(layer, "embeds", False) for weights in layer.parameters()}
    sizes = {weights: weights.numel() for weights in module.parameters()}
    return sum(sizes.values()), sum(size for weights, size in sizes.items() if weights not in embedding)


class Erf(nn.Module):
    """The error function, whose kernels have closed forms."""

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.erf(inputs)


class Dense(nn.Module):
    """A linear layer (N, fan_in) -> (N, fan_out), initialised by a `Law`. Biases begin at zero and have no multiplier.

    `grows`: whether its inputs and its outputs are more in a wider network.
    """

    def __init__(self, fan_in: int, fan_out: int, law: Law, grows: tuple[bool, bool]) -> None:
        super().__init__()
        self.multiplier, self.rates = law.multiplier(fan_in, grows), law.rates(grows)
        self.is_hidden, self.is_readout = grows == (True, True), grows == (True, False)
        self.weight = law.weight((fan_out, fan_in), fan_in, grows)
        self.bias = law.zeros(fan_out)

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(_times(inputs, self.multiplier), self.weight, self.bias)


class FixedDense(nn.Module):
    """A linear layer (N, fan_in) -> (N, fan_out) that is not trained: normal weights of variance 1 / fan_in, biases of deviation `bias`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, fan_in: int, fan_out: int, law: Law, *, bias: float = 0.0) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn((fan_out, fan_in), generator=law.generator) / math.sqrt(fan_in))
        self.register_buffer("bias", bias * torch.randn(fan_out, generator=law.generator))

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.linear(inputs, self.weight, self.bias)


class Conv(nn.Module):
    """A convolution (N, channels, H, W) that keeps H and W, or divides them by `stride`; as `Dense`, with fan_in = kernel^2 channels."""

    def __init__(self, channels: int, num_filters: int, law: Law, grows: tuple[bool, bool], *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        fan_in = kernel**2 * channels
        self.multiplier, self.rates = law.multiplier(fan_in, grows), law.rates(grows)
        self.weight = law.weight((num_filters, channels, kernel, kernel), fan_in, grows)
        self.bias = law.zeros(num_filters)
        self.stride, self.padding = stride, kernel // 2

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.conv2d(_times(inputs, self.multiplier), self.weight, self.bias, stride=self.stride, padding=self.padding)


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation of `size` channels, which are more in a wider network."""

    def __init__(self, size: int, law: Law) -> None:
        super().__init__(size)
        self.rates = law.rates((False, True))


class LayerNorm(nn.LayerNorm):
    """Normalisation of the last axis, of `size` units, which are more in a wider network."""

    def __init__(self, size: int, law: Law, eps: float = 1e-5) -> None:
        super().__init__(size, eps)
        self.rates = law.rates((False, True))


class Patches(nn.Module):
    """Images (N, channels, H, W) as squares of `size` x `size` pixels (N, T, channels size^2)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, inputs: Tensor) -> Tensor:
        num_samples, channels, height, width = inputs.shape
        squares = inputs.reshape(num_samples, channels, height // self.size, self.size, width // self.size, self.size)
        return squares.permute(0, 2, 4, 1, 3, 5).reshape(num_samples, -1, channels * self.size**2)


class Positions(nn.Module):
    """Adds to each of T places (N, T, width) what is learned of it: a weight of fan_in 1."""

    embeds = True

    def __init__(self, num_places: int, width: int, law: Law) -> None:
        super().__init__()
        self.rates = law.rates((False, True))
        self.weight = law.weight((num_places, width), 1, (False, True))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.weight


class Attention(nn.Module):
    """Softmax attention (N, T, width) of heads of `head_dim`; a plain product of matrices, which any derivative goes through."""

    def __init__(self, width: int, head_dim: int, law: Law) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.queries_keys_values = Dense(width, 3 * width, law, (True, True))
        self.output = Dense(width, width, law, (True, True))

    def forward(self, inputs: Tensor) -> Tensor:
        num_samples, num_places, width = inputs.shape
        heads = self.queries_keys_values(inputs).reshape(num_samples, num_places, 3, -1, self.head_dim)
        queries, keys, values = heads.permute(2, 0, 3, 1, 4).unbind()
        weights = (queries @ keys.transpose(-1, -2) / math.sqrt(self.head_dim)).softmax(-1)
        return self.output((weights @ values).transpose(1, 2).reshape(num_samples, num_places, width))  # type: ignore[no-any-return]


class Mean(nn.Module):
    """Over the places (N, T, width)."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.mean(1)


class Residual(nn.Module):
    """skip(x) + share branch(x)."""

    def __init__(self, branch: nn.Module, skip: nn.Module | None = None, share: float = 1.0) -> None:
        super().__init__()
        self.branch, self.skip, self.share = branch, skip or nn.Identity(), share

    def forward(self, inputs: Tensor) -> Tensor:
        return self.skip(inputs) + _times(self.branch(inputs), self.share)  # type: ignore[no-any-return]


def _times(inputs: Tensor, multiplier: float) -> Tensor:
    return inputs if multiplier == 1.0 else inputs * multiplier
