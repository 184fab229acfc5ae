"""Estimators of chi_net as the authors of the decomposition use them, written plainly, for networks of linear layers.

At their best use: one forward pass for all backward passes, and no gradients of weights where only norms are wanted.
"""

import torch
from torch import Tensor, nn

# N samples; C outputs; R probes


def gradient(model: nn.Module, loss: "nn.Module", inputs_N: Tensor, labels_N: Tensor) -> Tensor:
    """||grad L||^2 of the mean loss: one forward and one backward pass."""
    gradients = torch.autograd.grad(loss(model(inputs_N), labels_N).mean(), list(model.parameters()))
    return torch.stack([value.square().sum() for value in gradients]).sum()


def per_class_ghost_norms(model: nn.Module, inputs_N: Tensor) -> Tensor:
    """Exact: a backward pass for each output, and squared norms of each sample's gradient from activations and their gradients."""
    inputs, layers, outputs_NC = _forward(model, inputs_N)
    total = torch.zeros(())
    for output in range(outputs_NC.shape[1]):
        total = total + _ghost_norms(inputs, layers, outputs_NC[:, output].sum()).sum()
    return total / len(inputs_N)


def shared_probe_ghost_norms(model: nn.Module, inputs_N: Tensor, num_probes: int) -> Tensor:
    """Random signs, the same for all samples, and ghost norms."""
    inputs, layers, outputs_NC = _forward(model, inputs_N)
    total = torch.zeros(())
    for _ in range(num_probes):
        signs_C = torch.randint(0, 2, outputs_NC.shape[1:]) * 2.0 - 1.0
        total = total + _ghost_norms(inputs, layers, (outputs_NC * signs_C).sum()).sum()
    return total / num_probes / len(inputs_N)


def batch_hutchinson(model: nn.Module, inputs_N: Tensor, num_probes: int) -> Tensor:
    """Random signs for the whole batch, and the squared norm of one gradient."""
    outputs_NC, weights, total = model(inputs_N), list(model.parameters()), torch.zeros(())
    for _ in range(num_probes):
        signs_NC = torch.randint(0, 2, outputs_NC.shape) * 2.0 - 1.0
        gradients = torch.autograd.grad(outputs_NC, weights, signs_NC, retain_graph=True)
        total = total + torch.stack([value.square().sum() for value in gradients]).sum()
    return total / num_probes / len(inputs_N)


def _forward(model: nn.Module, inputs_N: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The input and the output of each linear layer."""
    inputs: list[Tensor] = []
    outputs: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
        inputs.append(given[0].detach())
        outputs.append(made)

    handles = [module.register_forward_hook(keep) for module in model.modules() if isinstance(module, nn.Linear)]
    try:
        result = model(inputs_N)
    finally:
        for handle in handles:
            handle.remove()
    return inputs, outputs, result


def _ghost_norms(inputs: list[Tensor], outputs: list[Tensor], scalar: Tensor) -> Tensor:
    """||d scalar / d weights||^2 of each sample (N,): |a|^2 |b|^2 for a weight, |b|^2 for a bias."""
    backs = torch.autograd.grad(scalar, outputs, retain_graph=True)
    parts = [(given.square().sum(1) + 1) * back.square().sum(1) for given, back in zip(inputs, backs)]
    return torch.stack(parts).sum(0)
