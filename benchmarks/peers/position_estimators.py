"""Estimators of chi_net as the authors of the decomposition use them, written plainly, for networks of linear layers.

At their best use: one forward pass for all backward passes, the norms of inputs once, and no gradients of weights where only norms are
wanted.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

# N samples; C outputs; R probes


@dataclass(frozen=True, slots=True)
class Passed:
    """A forward pass: the outputs (N, C), and the input and the output of each linear layer."""

    outputs_NC: Tensor
    inputs: list[Tensor]
    layers: list[Tensor]


def passed(model: nn.Module, inputs_N: Tensor) -> Passed:
    """The forward pass that all estimators begin with; a training step has made it."""
    inputs: list[Tensor] = []
    layers: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        inputs.append(given[0].detach())
        layers.append(made)

    handles = [module.register_forward_hook(keep) for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        return Passed(model(inputs_N), inputs, layers)
    finally:
        for handle in handles:
            handle.remove()


def per_class_ghost_norms(found: Passed) -> Tensor:
    """Exact: a backward pass for each output, and squared norms of each sample's gradient from activations and their gradients."""
    return _ghost_norms(found, list(found.outputs_NC.sum(0)))


def shared_probe_ghost_norms(found: Passed, num_probes: int) -> Tensor:
    """Random signs, the same for all samples, and ghost norms."""
    signs_RC = torch.randint(0, 2, (num_probes, found.outputs_NC.shape[1])) * 2.0 - 1.0
    return _ghost_norms(found, [(found.outputs_NC * signs_C).sum() for signs_C in signs_RC]) / num_probes


def batch_hutchinson(found: Passed, weights: list[Tensor], num_probes: int) -> Tensor:
    """Random signs for the whole batch, and the squared norm of one gradient."""
    total = torch.zeros(())
    for _ in range(num_probes):
        signs_NC = torch.randint(0, 2, found.outputs_NC.shape) * 2.0 - 1.0
        gradients = torch.autograd.grad(found.outputs_NC, weights, signs_NC, retain_graph=True)
        total = total + torch.stack([value.square().sum() for value in gradients]).sum()
    return total / num_probes / len(found.outputs_NC)


def _ghost_norms(found: Passed, scalars: list[Tensor]) -> Tensor:
    """sum over scalars of ||d scalar / d weights||^2, mean over samples: |a|^2 |b|^2 for a weight, |b|^2 for a bias."""
    of_inputs = [given.square().sum(1) + 1 for given in found.inputs]
    total = torch.zeros(())
    for scalar in scalars:
        backs = torch.autograd.grad(scalar, found.layers, retain_graph=True)
        total = total + torch.stack([given * back.square().sum(1) for given, back in zip(of_inputs, backs)]).sum()
    return total / len(found.outputs_NC)
