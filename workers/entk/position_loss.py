"""The loss of each unit, its gradient with respect to the outputs, and which units count (D2, D4)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workers.errors import ConfigError, Diverged

# N units (all leading axes of the outputs); B clusters (their first axis); C outputs

UnitLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """Of one batch: `gradient` of the summed loss (like the outputs, zero where a unit is not valid), and sums by cluster in float64."""

    gradient: Tensor
    valid: Tensor
    units_B: Tensor
    energy_B: Tensor
    loss_B: Tensor


def residuals(unit_loss: UnitLoss, outputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> Residuals:
    """u_n = d l_n / d f_n by one gradient through the loss alone, on detached outputs (*units, C); at least in float32.

    Raises ConfigError where the loss is not one number per unit.
    """
    valid = valid_units(unit_loss, outputs, targets, mask)
    # low precision is that of the network; the loss is evaluated as a training step would, in float32
    leaf = outputs.detach().to(torch.promote_types(outputs.dtype, torch.float32)).requires_grad_()
    with torch.enable_grad(), torch.autocast(outputs.device.type, enabled=False):
        loss = torch.where(valid, unit_losses(unit_loss, leaf, targets), 0.0)
        if not loss.requires_grad:
            raise ConfigError("the loss does not depend on the model's outputs by operations that can be differentiated")
        (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    gradient = torch.where(valid[..., None], gradient, 0.0)
    return Residuals(
        gradient=gradient,
        valid=valid,
        units_B=_by_cluster(valid),
        energy_B=_by_cluster(gradient.square().sum(-1, dtype=torch.float64)),
        loss_B=_by_cluster(loss.detach()),
    )


def valid_units(unit_loss: UnitLoss, outputs: Tensor, targets: Tensor, mask: Tensor | None) -> Tensor:
    """Which units count (bool, *units): `mask`, and where the loss has an `ignore_index`, targets that are not it."""
    units = outputs.shape[:-1]
    check_mask(mask, units)
    valid = torch.ones(units, dtype=torch.bool, device=outputs.device) if mask is None else mask
    ignored = getattr(unit_loss, "ignore_index", None)
    if ignored is not None and targets.shape == units:
        valid = valid & (targets != ignored)
    return valid


def check_mask(mask: Tensor | None, units: tuple[int, ...]) -> None:
    """ConfigError where a mask is not of the units."""
    if mask is not None and (not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != units):
        told = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
        raise ConfigError(f"mask must be of dtype bool and shape {tuple(units)}, the units of the outputs, got {told}")


def check_alone(unit_loss: UnitLoss, outputs: Tensor, targets: Tensor) -> None:
    """ConfigError where the losses of the first two of three clusters are others by themselves, in another order."""
    wide = outputs.detach().to(torch.promote_types(outputs.dtype, torch.float32))
    with torch.no_grad(), torch.autocast(outputs.device.type, enabled=False):
        # a target that is masked may be no number
        together, pair = (unit_losses(unit_loss, wide[which], targets[which]).nan_to_num() for which in ([0, 1, 2], [1, 0]))
    difference, scale = float((pair - together[[1, 0]]).abs().max()), float(together.abs().max())
    if difference > 1e3 * torch.finfo(wide.dtype).eps * scale:
        raise ConfigError(
            f"the loss of a unit changes by {difference:.1e} of {scale:.1e} with the units beside it; it must be of its own outputs and "
            "target alone: subtract no mean over units, and do not divide by their number"
        )


def check_finite(loss: float) -> None:
    """Diverged where outputs or losses are no numbers."""
    if not torch.isfinite(torch.tensor(loss)):
        raise Diverged(f"the mean loss is {loss}: parameters, outputs or targets hold numbers that are not finite")


def unit_losses(unit_loss: UnitLoss, outputs: Tensor, targets: Tensor) -> Tensor:
    """The loss (*units) of outputs (*units, C), all units along one axis; a loss that needs all axes is given them.

    One axis first: torch's cross entropy takes the second axis of (B, S, V) for the classes, and where S = V says nothing. ConfigError
    where what comes is not one number per unit; axes of one entry more, or all units along one axis, are no matter.
    """
    units = outputs.shape[:-1]
    if len(units) == 1 or targets.shape[: len(units)] != units:
        return _checked(unit_loss(outputs, targets), outputs)
    flat_NC = outputs.flatten(0, -2)
    try:
        return _checked(unit_loss(flat_NC, targets.flatten(0, len(units) - 1)), flat_NC).view(units)
    except (RuntimeError, ValueError, IndexError) as error:
        try:
            return _checked(unit_loss(outputs, targets), outputs)
        except (RuntimeError, ValueError, IndexError) as second:
            # what a loss gave instead says more than that it does not take all axes
            raise (error if isinstance(error, ConfigError) else second) from None


def _checked(loss: Tensor, outputs: Tensor) -> Tensor:
    units = outputs.shape[:-1]
    wanted = f"the loss must be one number per unit, shape {tuple(units)} for outputs {tuple(outputs.shape)}"
    if not isinstance(loss, Tensor) or loss.dim() == 0:
        raise ConfigError(f'{wanted}, got a single one; take reduction="none", since a mean and a sum cannot be told apart')
    long_axes = [size for size in loss.shape if size > 1]
    if long_axes not in ([size for size in units if size > 1], [units.numel()]):
        raise ConfigError(
            f"{wanted}, got {tuple(loss.shape)}; sum over what belongs to one unit, as in "
            "lambda outputs, targets: loss(outputs, targets).sum(-1)"
        )
    return loss.reshape(units)


def _by_cluster(values: Tensor) -> Tensor:
    return values.to(torch.float64).flatten(1).sum(1) if values.dim() > 1 else values.to(torch.float64)
