"""Losses per unit and their residuals (D4): what is averaged, and its gradient with respect to the outputs."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# N samples; C outputs

NAMES = ("cross_entropy", "mse")


def loss_per_unit(name: str, outputs_NC: "Tensor", labels_N: "Tensor") -> "Tensor":
    """Loss (N,) of each unit: cross entropy in nats, or half the squared distance to the one-hot label ("mse")."""
    from torch.nn import functional

    if name == "cross_entropy":
        return functional.cross_entropy(outputs_NC, labels_N, reduction="none")
    return 0.5 * residual(name, outputs_NC, labels_N).square().sum(-1)


def residual(name: str, outputs_NC: "Tensor", labels_N: "Tensor") -> "Tensor":
    """Gradient (N, C) of each unit's loss with respect to its outputs: softmax(f) - e_y, or f - e_y."""
    from torch.nn import functional

    targets_NC = functional.one_hot(labels_N, outputs_NC.shape[-1]).to(outputs_NC.dtype)
    return (outputs_NC.softmax(-1) if name == "cross_entropy" else outputs_NC) - targets_NC
