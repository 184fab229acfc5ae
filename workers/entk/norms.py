"""Squared norms of per-sample gradients, for many cotangents at once."""

from collections.abc import Mapping
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from workers.entk import checks

# N samples; R cotangents of each sample

NUM_ELEMENTS_AT_ONCE = 2**24

Norms = Tensor | dict[str, Tensor]


@overload
def squared_gradient_norms(model: nn.Module, inputs: Tensor, cotangents_RN: Tensor, *, by_parameter: Literal[False] = ...) -> Tensor: ...


@overload
def squared_gradient_norms(
    model: nn.Module, inputs: Tensor, cotangents_RN: Tensor, *, by_parameter: Literal[True]
) -> dict[str, Tensor]: ...


@overload
def squared_gradient_norms(model: nn.Module, inputs: Tensor, cotangents_RN: Tensor, *, by_parameter: bool) -> Norms: ...


def squared_gradient_norms(model: nn.Module, inputs: Tensor, cotangents_RN: Tensor, *, by_parameter: bool = False) -> Norms:
    """||J_n^T v_rn||^2 (R, N) of each sample n (axis 0 of `inputs`), summed over its units and outputs; or that by parameter's name.

    `cotangents_RN`: (R, *outputs.shape). Trainable parameters only. The model must treat samples independently.
    """
    weights = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}

    def squares(sample: Tensor, cotangents_R: Tensor) -> dict[str, Tensor]:
        def outputs(weights: Mapping[str, Tensor]) -> Tensor:
            return checks.outputs(functional_call(model, dict(weights), (sample[None],)))[0]

        pull_back = vjp(outputs, weights)[1]
        (gradients,) = vmap(pull_back)(cotangents_R)
        return {name: gradient.flatten(1).square().sum(1) for name, gradient in gradients.items()}

    num_at_once = max(1, NUM_ELEMENTS_AT_ONCE // max(1, len(cotangents_RN) * sum(value.numel() for value in weights.values())))
    found: dict[str, Tensor] = vmap(squares, in_dims=(0, 1), out_dims=1, chunk_size=num_at_once)(inputs, cotangents_RN)
    return found if by_parameter else torch.stack(list(found.values())).sum(0)
