"""Gradients of many multi-layer perceptrons at once: batched products forward and backward, written out, without autograd."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch  # noqa: TID253  (imported by `workers.ensembles.stacked` alone)
from torch import Tensor, nn  # noqa: TID253

from workers.ensembles.products import batched_product
from workers.layers import Dense, Erf

# E networks; N samples of a batch; D inputs and H outputs of a layer; C outputs of the network

_ACTIVATIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.Identity: lambda before: before,
    nn.ReLU: torch.relu,
    nn.GELU: torch.nn.functional.gelu,
    nn.Tanh: torch.tanh,
    Erf: torch.erf,
}
# (gradient, input, output of the activation) -> gradient with respect to its input
_DERIVATIVES: dict[type[nn.Module], Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    nn.Identity: lambda gradient, before, after: gradient,
    nn.ReLU: lambda gradient, before, after: torch.ops.aten.threshold_backward(gradient, after, 0),
    nn.GELU: lambda gradient, before, after: torch.ops.aten.gelu_backward(gradient, before),
    nn.Tanh: lambda gradient, before, after: torch.ops.aten.tanh_backward(gradient, after),
    Erf: lambda gradient, before, after: gradient * (before.square().neg().exp() * (2 / math.sqrt(math.pi))),
}


@dataclass(frozen=True, slots=True)
class Stage:
    """A product with weights (H, D), by their name among the parameters, and the activation that follows it."""

    weight: str
    bias: str | None
    multiplier: float
    activation: type[nn.Module]


def stages(module: nn.Module) -> tuple[Stage, ...] | None:
    """Those of a network that is dense layers and activations of flattened inputs; None: it is another kind of network."""
    children = list(module.named_children())
    if type(module) is not nn.Sequential or not children or len(children) % 2 or type(children[0][1]) is not nn.Flatten:
        return None
    found: list[Stage] = []
    for (name, dense), (_, activation) in zip(children[1::2], [*children[2::2], ("", nn.Identity())], strict=True):
        if type(dense) is not Dense or type(activation) not in _ACTIVATIONS:
            return None
        bias = f"{name}.bias" if dense.bias is not None else None
        found.append(Stage(f"{name}.weight", bias, dense.multiplier, type(activation)))
    return tuple(found)


def outputs(layers: tuple[Stage, ...], parameters: Mapping[str, Tensor], inputs: Tensor, *, shared: bool) -> Tensor:
    """Outputs (E, N, C) for inputs (N, ...) that all networks share, or (E, N, ...) of their own."""
    return _forward(layers, parameters, inputs, shared=shared)[-1][-1]


def gradients(
    layers: tuple[Stage, ...],
    loss: str,
    parameters: Mapping[str, Tensor],
    inputs: Tensor,
    targets: Tensor,
    temperatures_E: Tensor | None,
    *,
    shared: bool,
    num_samples: int,
    into: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Gradients (E, ...) by parameter of each network's loss, summed over the samples given and divided by `num_samples`.

    `into`: tensors that may hold them. Inputs and targets are (N, ...) where `shared`, else (E, N, ...); `temperatures_E` divide the
    outputs.
    """
    trace = _forward(layers, parameters, inputs, shared=shared)
    scale = num_samples if temperatures_E is None else temperatures_E.view(-1, 1, 1) * num_samples
    outputs_ENC = trace[-1][-1] if temperatures_E is None else trace[-1][-1] / temperatures_E.view(-1, 1, 1)
    gradient = _residual(loss, outputs_ENC, targets).div_(scale)
    found: dict[str, Tensor] = {}
    for layer, (inputs_END, before, after) in zip(reversed(layers), reversed(trace), strict=True):
        gradient = _DERIVATIVES[layer.activation](gradient, before, after)
        if layer.bias is not None:
            found[layer.bias] = gradient.sum(1)
        room = into.get(layer.weight) if into is not None else None
        found[layer.weight] = _scaled(batched_product(gradient.mT, inputs_END, room), layer.multiplier)
        if layer is not layers[0]:
            gradient = _scaled(batched_product(gradient, parameters[layer.weight]), layer.multiplier)
    return found


def _forward(
    layers: tuple[Stage, ...], parameters: Mapping[str, Tensor], inputs: Tensor, *, shared: bool
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """For each layer its inputs (E, N, D), and what comes before and after its activation."""
    first, trace = parameters[layers[0].weight], []
    current = inputs.flatten(1).expand(len(first), -1, -1) if shared else inputs.flatten(2)
    for layer in layers:
        before = _scaled(batched_product(current, parameters[layer.weight].mT), layer.multiplier)
        if layer.bias is not None:
            before += parameters[layer.bias].unsqueeze(1)
        after = _ACTIVATIONS[layer.activation](before)
        trace.append((current, before, after))
        current = after
    return trace


def _residual(loss: str, outputs_ENC: Tensor, targets: Tensor) -> Tensor:
    """As `losses.residual`, without the look at the labels that makes a device wait."""
    if targets.is_floating_point():
        return outputs_ENC - targets
    start_ENC = outputs_ENC.softmax(-1) if loss == "cross_entropy" else outputs_ENC.clone()
    labels_EN1 = targets.long().expand(start_ENC.shape[:2]).unsqueeze(-1)
    minus_one = torch.full((1, 1, 1), -1.0, dtype=start_ENC.dtype, device=start_ENC.device)
    return start_ENC.scatter_add_(-1, labels_EN1, minus_one.expand(labels_EN1.shape))


def _scaled(values: Tensor, multiplier: float) -> Tensor:
    return values if multiplier == 1.0 else values.mul_(multiplier)
