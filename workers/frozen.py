"""Training in which the kernel stands still, wholly or nearly: the frozen modes (D9) that feature learning is compared with."""

from collections.abc import Mapping

import torch  # noqa: TID253  (imported by a training's `run` alone)
from torch import Tensor, nn  # noqa: TID253
from torch.func import functional_call, jvp  # noqa: TID253

from workers.errors import ConfigError

# N samples; C outputs; P parameters


class _Anchored(nn.Module):
    """A network with a copy of the weights that it had, as buffers; its parameters are those of `module`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        for index, weights in enumerate(module.parameters()):
            self.register_buffer(f"anchor_{index}", weights.detach().clone())

    def anchors(self) -> dict[str, Tensor]:
        """The weights of that time, by their names in `module`."""
        return {name: getattr(self, f"anchor_{index}") for index, (name, _) in enumerate(self.module.named_parameters())}

    def at(self, weights: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
        """Outputs (N, C) with other weights."""
        return functional_call(self.module, dict(weights), (inputs,))  # type: ignore[no-any-return]


class Linearised(_Anchored):
    """f(theta_t) + J(theta_t) (theta - theta_t), by one Jacobian-vector product: its kernel is that of theta_t for ever."""

    def forward(self, inputs: Tensor) -> Tensor:
        anchors = self.anchors()
        change = {name: weights - anchors[name] for name, weights in self.module.named_parameters()}
        outputs, moved = jvp(lambda weights: self.at(weights, inputs), (anchors,), (change,))[:2]
        return outputs + moved  # type: ignore[no-any-return]


class Lazy(_Anchored):
    """alpha (h(theta) - h(theta_0)): the larger alpha, the less the weights move for the same change of outputs (Chizat et al. 2019)."""

    def __init__(self, module: nn.Module, alpha: float) -> None:
        super().__init__(module)
        self.alpha = alpha

    def forward(self, inputs: Tensor) -> Tensor:
        with torch.no_grad():
            start = self.at(self.anchors(), inputs)
        return self.alpha * (self.module(inputs) - start)  # type: ignore[no-any-return]


def freeze(mode: str, module: nn.Module, alpha: float = 1.0) -> nn.Module:
    """The network that is trained from now on, on the same parameters; of "readout" and "random_features" only the readout's learn."""
    if mode == "linearised":
        return Linearised(module)
    if mode == "lazy":
        return Lazy(module, alpha)
    readout = {weights for layer in _readouts(module) for weights in layer.parameters()}
    for weights in module.parameters():
        weights.requires_grad_(weights in readout)
    return module


def rate_factor(mode: str, alpha: float, *, normalised: bool) -> float:
    """Of the learning rate, so that outputs move as fast at every alpha: 1 / alpha^2, or 1 / alpha for steps of one size (Adam's)."""
    return 1.0 if mode != "lazy" else 1.0 / alpha if normalised else 1.0 / alpha**2


def _readouts(module: nn.Module) -> list[nn.Module]:
    found = [layer for layer in module.modules() if getattr(layer, "is_readout", False)]
    if not found:
        raise ConfigError(
            "frozen=readout needs a network that says which layer is its readout, by an attribute `is_readout`; "
            f"{type(module).__name__} has none (a language model with model.tied=true has no weights of a readout's own)"
        )
    return found
