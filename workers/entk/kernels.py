"""Kernel matrices without the Jacobian: layer by layer from its inputs and the cotangents of its outputs (Novak et al. 2022, D1)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from workers.entk import checks
from workers.entk.network import Forward, Network, Samples, look
from workers.entk.planning import Basis, Group, Piece, counted_flops, groups, pieces
from workers.entk.position_loss import UnitLoss, unit_losses, valid_units
from workers.entk.position_model import unwrap
from workers.entk.tiles import Work, finish, num_passes
from workers.errors import ConfigError

# N, M samples; C outputs; S units of a sample

OUTPUTS = ("full", "traced", "sum_logits", "per_class")
# of the memory: for forward and backward passes, and for rows that are made in panels; the rest holds blocks
PASS_SHARE = 0.25
PANEL_SHARE = 0.1
PANEL_BYTES = 48 * 2**20  # larger ones leave the caches

Layers = str | Callable[[str], str] | None
Progress = Callable[[int, int], None]


def gram(
    model: nn.Module,
    x: Any,
    z: Any = None,
    *,
    outputs: str = "full",
    memory_gib: float = 2.0,
    layers: Layers = None,
    scales: Mapping[str, float] | str | None = None,
    statistics: str | None = None,
    progress: Progress | None = None,
) -> Any:
    """The exact empirical neural tangent kernel Theta = J J^T of the trainable weights, or J(x) J(z)^T (D1).

    `x`, `z`: samples along the first axis (a tensor, or a tuple of tensors that the model takes as its arguments); the last axis of
    model(x) is C outputs, those between are units (tokens) of a sample. With N and M units in all, `outputs` gives

    - "full": (N C, M C), row n C + c;
    - "traced": (N, M), the mean over outputs, as neural-tangents;
    - "sum_logits": (N, M), of sum_c f_c;
    - "per_class": (C, N, M), the kernel of each output alone.

    `memory_gib` bounds what is held beside the result. `layers`: a dictionary of kernels that add up to the whole, for "weight" (each
    tensor of weights), "module" (each module) or by a function from a weight's name to that of its group. `scales`: factors of the
    kernel of each tensor of weights (1 where absent: J diag(s) J^T, D8), or "ntk": 1 / fan-in of each matrix, the kernel of the same
    function in NTK parameterisation. `statistics`: for active batch normalisation, "running" or "batch" (frozen ones of x).

    The result has the dtype and device of the outputs. Raises ConfigError for a model or probe set that has no such kernel, with the
    reason; Diverged for weights or outputs that are not finite.
    """
    checks.one_of("outputs", outputs, OUTPUTS)
    model, rows, columns = unwrap(model)[0], checks.samples("x", x), None if z is None else checks.samples("z", z)
    with checks.as_found(model, rows, statistics):
        forward = model_outputs(model)
        network = look_at(model, forward, rows, columns)
        made = plan_of(network, basis_of(outputs, network.shape), rows, columns, memory_gib, layers, _scales(scales, network))
        kernels = _kernels(network, made, rows, columns, per_class=outputs == "per_class", progress=progress)
    return kernels if layers is not None else kernels[""]


def plan(
    model: nn.Module,
    x: Any,
    z: Any = None,
    *,
    outputs: str = "full",
    memory_gib: float = 2.0,
    layers: Layers = None,
    statistics: str | None = None,
) -> "Plan":
    """What `gram` would do with the same arguments: the form of each weight, its operations, and what is held; print it."""
    checks.one_of("outputs", outputs, OUTPUTS)
    model, rows, columns = unwrap(model)[0], checks.samples("x", x), None if z is None else checks.samples("z", z)
    with checks.as_found(model, rows, statistics):
        network = look_at(model, model_outputs(model), rows, columns)
        return plan_of(network, basis_of(outputs, network.shape), rows, columns, memory_gib, layers, {})


def loss_gram(
    model: nn.Module,
    unit_loss: UnitLoss,
    batch: tuple[Any, Tensor],
    other: tuple[Any, Tensor] | None = None,
    *,
    per_unit: bool = False,
    memory_gib: float = 2.0,
    layers: Layers = None,
    statistics: str | None = None,
    progress: Progress | None = None,
) -> Any:
    """The loss kernel (N, M): inner products of the gradients of each sample's mean loss, or of each unit's with `per_unit`.

    `unit_loss(outputs, targets)` gives one loss for each unit, for example `CrossEntropyLoss(reduction="none")`, and is called as by
    `lnp`; the mean is over the units whose target is not its `ignore_index`. For the mean loss L over N samples of one unit each,
    ||grad L||^2 is the mean of the kernel (D3).
    """
    model, rows = unwrap(model)[0], checks.samples("x", *checks.pair("batch", batch))
    columns = None if other is None else checks.samples("other", *checks.pair("other", other))
    with checks.as_found(model, rows, statistics):
        apply = model_outputs(model)

        def losses(samples: Samples) -> Tensor:
            outputs, targets = apply(samples[:-1]), samples[-1]
            values = unit_losses(unit_loss, outputs, targets)
            if per_unit or values.dim() == 1:
                return values
            valid = valid_units(unit_loss, outputs, targets, None).flatten(1)
            return (values.flatten(1) * valid).sum(1) / valid.sum(1).clamp(min=1)

        network = look_at(model, losses, rows, columns)
        made = plan_of(network, Basis(network.shape[1:].numel(), 1), rows, columns, memory_gib, layers, {})
        kernels = _kernels(network, made, rows, columns, per_class=False, progress=progress)
    return kernels if layers is not None else kernels[""]


def model_outputs(model: nn.Module) -> Forward:
    def forward(samples: Samples) -> Tensor:
        return checks.outputs(model(*samples))

    return forward


def look_at(model: nn.Module, forward: Forward, rows: Samples, columns: Samples | None) -> Network:
    checks.match(rows, columns)
    checks.place(model, rows)
    return look(model, forward, rows)


def basis_of(outputs: str, shape: torch.Size) -> Basis:
    checks.last_axis(shape)
    num_outputs = shape[-1]
    num_units = torch.Size(shape[1:-1]).numel()
    if outputs == "full":
        return Basis(num_units * num_outputs, 1)
    if outputs == "traced":
        return Basis(num_units, num_outputs)
    if outputs == "sum_logits":
        return Basis(num_units, 1, num_outputs)
    if num_units > 1:
        raise ConfigError(f"outputs='per_class' needs one unit a sample, got outputs of shape {tuple(shape)}; take 'full' and its blocks")
    return Basis(num_outputs, 1)


def _scales(scales: Mapping[str, float] | str | None, network: Network) -> dict[str, float]:
    if scales == "ntk":
        return {name: 1.0 / weight[0].numel() for name, weight in network.weights.items() if weight.dim() > 1}
    if scales is not None and not isinstance(scales, Mapping):
        raise ConfigError(f"scales must be 'ntk' or a factor for each weight's name, got {scales!r}")
    unknown = sorted(set(scales or {}) - set(network.weights))
    if unknown:
        raise ConfigError(f"scales names {', '.join(unknown)}; the trainable weights are {', '.join(network.weights)}")
    for name, scale in (scales or {}).items():
        is_number = isinstance(scale, Real) and not isinstance(scale, bool)
        if not is_number or not 0 <= scale < math.inf:
            raise ConfigError(f"the scale of {name} must be a finite number, at least 0, got {scale!r}")
    return dict(scales or {})


def _label(layers: Layers) -> Callable[[str], str]:
    if layers is None:
        return lambda name: ""
    if callable(layers):
        return layers
    checks.one_of("layers", layers, ("weight", "module"))
    return (lambda name: name) if layers == "weight" else (lambda name: name.rpartition(".")[0])


@dataclass(frozen=True, slots=True)
class Plan:
    """How a kernel is computed: weights in their forms, in groups that are held at a time."""

    basis: Basis
    groups: tuple[Group, ...]
    num_rows: int  # samples of both sides
    num_columns: int
    symmetric: bool
    item_bytes: int
    budget_bytes: int

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Every weight, outputs first."""
        return tuple(piece for group in self.groups for piece in group.pieces)

    @property
    def flops(self) -> int:
        """Of the products in the cheapest exact form, without forward and backward passes; a multiplication and an addition are two."""
        return counted_flops(self.pieces, self.num_rows, self.num_columns, symmetric=self.symmetric)

    @property
    def kernel_bytes(self) -> int:
        """Of the result."""
        return self.num_rows * self.num_columns * self.basis.num_rows**2 * self.item_bytes

    @property
    def block_bytes(self) -> int:
        """Held at a time beside the result and the passes."""
        both = [group.num_rows + (0 if group.num_rows >= self.num_rows and self.symmetric else group.num_columns) for group in self.groups]
        return max(count * group.floats for count, group in zip(both, self.groups)) * self.item_bytes

    @property
    def num_passes(self) -> int:
        """Samples that go through a forward pass, with their backward passes."""
        return num_passes(self.groups, self.num_rows, self.num_columns, symmetric=self.symmetric)

    def __str__(self) -> str:
        lines = [f"{'weight':40s} {'form':10s} {'weights':>12s} {'GFLOP':>10s} group"]
        for index, group in enumerate(self.groups):
            for piece in group.pieces:
                flops = counted_flops((piece,), self.num_rows, self.num_columns, symmetric=self.symmetric)
                lines.append(f"{piece.name:40s} {piece.form:10s} {piece.num_weights:12,d} {flops / 1e9:10.3g} {index + 1}")
        lines.append(
            f"{self.flops / 1e9:.3g} GFLOP of products, {self.num_passes:,} samples through passes; "
            f"holds {self.block_bytes / 2**20:,.0f} MiB of blocks at a time, the kernel takes {self.kernel_bytes / 2**20:,.0f} MiB"
        )
        return "\n".join(lines)


def plan_of(
    network: Network,
    basis: Basis,
    rows: Samples,
    columns: Samples | None,
    memory_gib: float,
    layers: Layers,
    scales: dict[str, float],
) -> Plan:
    found = pieces(network, basis, _label(layers), scales)
    item_bytes, budget_bytes = network.probe.outputs.element_size(), checks.memory(memory_gib)
    num_rows, num_columns = len(rows[0]), len((columns or rows)[0])
    floats_per_gib = int(2**30 * (1 - PASS_SHARE - 2 * PANEL_SHARE)) // item_bytes
    made = groups(found, num_rows, num_columns, memory_gib, floats_per_gib, symmetric=columns is None)
    return Plan(basis, tuple(made), num_rows, num_columns, columns is None, item_bytes, budget_bytes)


def _kernels(
    network: Network, made: Plan, rows: Samples, columns: Samples | None, *, per_class: bool, progress: Progress | None
) -> dict[str, Tensor]:
    """The kernels by their labels."""
    size = made.basis.num_rows
    shape = (size, made.num_rows, made.num_columns) if per_class else (made.num_rows * size, made.num_columns * size)
    kernels = {name: network.probe.outputs.new_zeros(shape).detach() for name in dict.fromkeys(piece.label for piece in made.pieces)}
    panel_bytes = min(PANEL_BYTES, int(made.budget_bytes * PANEL_SHARE))
    work = Work(network, made.basis, rows, columns, kernels, per_class, int(made.budget_bytes * PASS_SHARE), panel_bytes)
    total, done = made.num_passes, 0
    for group in made.groups:
        for count in work.add(group):
            done += count
            if progress is not None:
                progress(done, total)
    for kernel in kernels.values():
        finish(kernel, made.basis, symmetric=made.symmetric)
    return kernels
