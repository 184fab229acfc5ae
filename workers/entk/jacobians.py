"""The Jacobian itself, the plain way: what the engine avoids, and what it is checked against."""

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

# N samples; C outputs; P parameters of one tensor of weights

Jacobian = dict[str, Tensor]


def jacobian(module: nn.Module, inputs_N: Tensor) -> Jacobian:
    """d outputs / d weights of each trainable tensor of a module, (N, C, P), in the module's dtype, all at once.

    The module must treat samples independently (no batch statistics), and map (N, ...) to (N, C).
    """
    weights = {name: value.detach() for name, value in module.named_parameters() if value.requires_grad}

    def outputs_C(weights: Jacobian, sample: Tensor) -> Tensor:
        return functional_call(module, weights, (sample[None],))[0]  # type: ignore[no-any-return]

    found: Jacobian = vmap(jacrev(outputs_C), in_dims=(None, 0))(weights, inputs_N)
    return {name: value.flatten(2) for name, value in found.items()}


def flat_jacobian(module: nn.Module, inputs_N: Tensor) -> Tensor:
    """All of it as one matrix (N C, P), row n C + c."""
    return torch.cat(list(jacobian(module, inputs_N).values()), dim=2).flatten(0, 1)
