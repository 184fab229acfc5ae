"""Losses per unit and their residuals (D4): what is averaged, and its gradient with respect to the outputs."""

from typing import TYPE_CHECKING

from workers.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

# N samples or, with further axes, units of them; C outputs

NAMES = ("cross_entropy", "mse")
# from where on arrays of logits are what a loss takes its time for
MANY_CLASSES = 1024


def loss_per_unit(name: str, outputs_NC: "Tensor", targets: "Tensor", logit_temperature: float = 1.0) -> "Tensor":
    """Loss (N,) of each unit: cross entropy in nats, or half the squared distance to the one-hot label or the value ("mse").

    Of the outputs over `logit_temperature` (D14). Those of language models (N, T, C) have targets (N, T) and losses (N, T); values as
    targets are (N, C).
    """
    from torch.nn import functional

    if logit_temperature != 1.0:
        outputs_NC = outputs_NC / logit_temperature
    if name == "cross_entropy":
        flat_NC, labels_N = outputs_NC.flatten(0, -2), targets.flatten().long()
        if flat_NC.shape[-1] >= MANY_CLASSES and flat_NC.device.type == "cpu":
            from workers.cross_entropy import cross_entropy

            return cross_entropy(flat_NC, labels_N).view(targets.shape)
        return functional.cross_entropy(flat_NC, labels_N, reduction="none").view(targets.shape)
    return 0.5 * residual(name, outputs_NC, targets).square().sum(-1)


def residual(name: str, outputs_NC: "Tensor", targets: "Tensor") -> "Tensor":
    """Gradient (N, C) of each unit's loss with respect to its outputs: softmax(f) - e_y, f - e_y, or f - y."""
    return (outputs_NC.softmax(-1) if name == "cross_entropy" else outputs_NC) - values(targets, outputs_NC.shape[-1]).to(outputs_NC.dtype)


def values(targets: "Tensor", num_outputs: int) -> "Tensor":
    """Targets as outputs (N, C) could be: values as they are, labels one-hot."""
    import torch

    if targets.is_floating_point():
        return targets
    # torch's one_hot looks at the labels, for which a device has to be waited for, and which vmap cannot do
    return (targets.unsqueeze(-1) == torch.arange(num_outputs, device=targets.device)).to(torch.int64)


def units(outputs: "Tensor", targets: "Tensor") -> "tuple[Tensor, Tensor]":
    """Outputs (N, C) and targets (N,) or (N, C) of all units along one axis: tokens of sequences, one sequence after the other."""
    flat_NC = outputs.flatten(0, -2)
    return flat_NC, targets if targets.is_floating_point() else targets.flatten()


def check_targets(name: str, *, are_values: bool) -> None:
    """ConfigError for the cross entropy of targets that are values, not labels."""
    if name == "cross_entropy" and are_values:
        raise ConfigError("loss=cross_entropy needs labels, and this data set has values as targets; take loss=mse")
