"""Gradients of the summed loss over blocks of clusters, one backward pass per block, and plain probes on the same graphs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from workers.entk import checks
from workers.entk.position_loss import UnitLoss, residuals
from workers.entk.position_trace import rademacher
from workers.errors import ConfigError

# B clusters (axis 0 of the inputs); K blocks; L tensors of parameters; R probes

KNOWN_OPTIMIZERS = ("Adam", "AdamW")

Preconditioner = Mapping[str, Tensor] | Optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Inputs (B, ...), targets of its units, and which units count."""

    inputs: Tensor
    targets: Tensor
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.inputs, Tensor):
            raise ConfigError(
                f"the inputs of a batch must be one tensor, got {type(self.inputs).__name__}; wrap the model in a module of one input"
            )

    @classmethod
    def of(cls, name: str, found: tuple[Tensor, Tensor], mask: Tensor | None) -> "Batch":
        """Inputs and targets as tensors without a graph, also those of inference mode; ConfigError for what is no pair of them."""
        inputs, targets = checks.pair(name, found)
        plain = cls(inputs=inputs, targets=targets, mask=mask)
        (inputs, targets) = checks.samples(name, plain.inputs, targets)
        if isinstance(mask, Tensor) and mask.is_inference():
            with torch.inference_mode(False):
                mask = mask.clone()
        return cls(inputs=inputs, targets=targets, mask=mask)

    def every(self, num_blocks: int, first: int) -> "Batch":
        """Each `num_blocks`-th cluster from `first` on: blocks of a batch that is sorted by class are alike."""
        return self.rows(slice(first, None, num_blocks))

    def rows(self, rows: slice) -> "Batch":
        """Some of its clusters."""
        return Batch(inputs=self.inputs[rows], targets=self.targets[rows], mask=None if self.mask is None else self.mask[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockGradients:
    """`gradients_LK`: for each tensor of parameters (K, *shape), of the summed loss, times the root of the preconditioner.

    The rest are sums by block or by cluster in float64; `valid` and what goes by cluster are in the order of the inputs; traces_LRK by
    plain probes, where there were any.
    """

    gradients_LK: list[Tensor]
    units_B: Tensor
    energy_B: Tensor
    loss_B: Tensor
    traces_LRK: Tensor | None
    valid: Tensor


def block_gradients(
    model: nn.Module,
    unit_loss: UnitLoss,
    batch: Batch,
    *,
    num_blocks: int,
    num_probes: int,
    roots_L: Sequence[Tensor] | None,
    generator: torch.Generator,
) -> BlockGradients:
    """Block k holds the clusters k, k + num_blocks, ...; `num_probes`: plain probes of each block (0: none)."""
    parameters = trainable(model)
    gradients, sums, traces = [], [], []
    for block in range(num_blocks):
        part = batch.every(num_blocks, block)
        with torch.enable_grad():
            outputs = checks.outputs(model(part.inputs))
        found = residuals(unit_loss, outputs, part.targets, part.mask)
        sums.append(found)
        gradients.append(_gradient(outputs, parameters, found.gradient.to(outputs.dtype), roots_L, keep=num_probes > 0))
        for probe in range(num_probes):
            cotangent = rademacher(tuple(outputs.shape), outputs, generator) * found.valid[..., None]
            gradient = _gradient(outputs, parameters, cotangent, roots_L, keep=probe + 1 < num_probes)
            traces.append(torch.stack([squares(value[None])[0] for value in gradient]))
    return BlockGradients(
        gradients_LK=[torch.stack(values) for values in zip(*gradients)],
        units_B=_interleave([found.units_B for found in sums]),
        energy_B=_interleave([found.energy_B for found in sums]),
        loss_B=_interleave([found.loss_B for found in sums]),
        traces_LRK=torch.stack(traces, dim=1).view(-1, num_blocks, num_probes).transpose(1, 2) if traces else None,
        valid=_interleave([found.valid for found in sums]),
    )


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that are trained; ConfigError where there are none."""
    found = [weights for weights in model.parameters() if weights.requires_grad]
    if not found:
        raise ConfigError("the model has no parameter with requires_grad=True")
    return found


def preconditioner_roots(model: nn.Module, preconditioner: Preconditioner | None) -> list[Tensor] | None:
    """P^(1/2) of each trainable parameter, P = 1 / (sqrt(v_hat) + eps) for an Adam of torch."""
    if preconditioner is None:
        return None
    named = [(name, weights) for name, weights in model.named_parameters() if weights.requires_grad]
    if isinstance(preconditioner, Optimizer):
        scales = _adam_scales(preconditioner)
        found = [scales.get(id(weights)) for _, weights in named]
    else:
        found = [preconditioner.get(name) for name, _ in named]
    checked = [_checked(name, weights, scale) for (name, weights), scale in zip(named, found)]
    lowest, name = min(zip(torch.stack([scale.min() for scale in checked]).tolist(), (name for name, _ in named)))
    if lowest < 0:
        raise ConfigError(f"the preconditioner of {name} must not be negative, got {lowest}")
    return [scale.detach().sqrt() for scale in checked]


def _checked(name: str, weights: Tensor, scale: Tensor | None) -> Tensor:
    if scale is None or scale.shape != weights.shape:
        given = "nothing" if scale is None else f"shape {tuple(scale.shape)}"
        raise ConfigError(
            f"the preconditioner needs a tensor of shape {tuple(weights.shape)} for {name}, got {given}; "
            "an optimiser has one after its first step"
        )
    return scale


def _adam_scales(optimizer: Optimizer) -> dict[int, Tensor]:
    kind = type(optimizer).__name__
    if kind not in KNOWN_OPTIMIZERS:
        raise ConfigError(
            f"the preconditioner of {kind} is not known; known are {' and '.join(KNOWN_OPTIMIZERS)}, or give a mapping from the names of "
            "parameters to tensors"
        )
    found = [(weights, optimizer.state.get(weights, {}), group) for group in optimizer.param_groups for weights in group["params"]]
    found = [(weights, state, group) for weights, state, group in found if "exp_avg_sq" in state]
    # all at once: a fused optimiser keeps them on the device
    steps = torch.stack([torch.as_tensor(state["step"]) for _, state, _ in found]).tolist() if found else []
    scales = {}
    for step, (weights, state, group) in zip(steps, found):
        moment = state["max_exp_avg_sq"] if group.get("amsgrad") else state["exp_avg_sq"]
        scales[id(weights)] = 1 / ((moment / (1 - group["betas"][1] ** step)).sqrt() + group["eps"])
    return scales


def squares(rows_K: Tensor) -> Tensor:
    """||row||^2 of each (K, ...): BLAS in their own precision, several times faster than sums of squares in float64; then float64."""
    return torch.stack([torch.dot(row, row) for row in rows_K.reshape(len(rows_K), -1)]).to(torch.float64)


def dots(rows_K: Tensor, other: Tensor) -> Tensor:
    """Inner products (K,) of rows (K, ...) with one more, likewise."""
    return torch.mv(rows_K.reshape(len(rows_K), -1), other.flatten()).to(torch.float64)


def _gradient(
    outputs: Tensor, parameters: Sequence[nn.Parameter], cotangent: Tensor, roots_L: Sequence[Tensor] | None, *, keep: bool
) -> list[Tensor]:
    """J^T v of each parameter, at least in float32."""
    found = torch.autograd.grad(outputs, parameters, cotangent, retain_graph=keep, allow_unused=True, materialize_grads=True)
    wide = [gradient.to(torch.promote_types(gradient.dtype, torch.float32)) for gradient in found]
    return wide if roots_L is None else [gradient * root for gradient, root in zip(wide, roots_L)]


def _interleave(parts: Sequence[Tensor]) -> Tensor:
    """Clusters of all blocks in the order of the inputs."""
    result = parts[0].new_empty((sum(len(part) for part in parts), *parts[0].shape[1:]))
    for block, part in enumerate(parts):
        result[block :: len(parts)] = part
    return result
