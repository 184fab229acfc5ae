"""chi_loss, chi_net and chi_pos along a training: log-spaced windows of steps, and sums of micro-batches (D6)."""

import contextlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from workers.entk import checks
from workers.entk.network import Network
from workers.entk.norms import network, norms_by_parameter
from workers.entk.position_blocks import jackknife_variance
from workers.entk.position_gradients import Batch, trainable
from workers.entk.position_loss import UnitLoss, residuals
from workers.entk.position_model import rank, sum_over_ranks, unwrap
from workers.entk.position_trace import balanced_probes
from workers.errors import ConfigError

# B clusters (axis 0 of the inputs); R probes; T steps


def log_windows(num_steps: int, per_decade: int = 5, width: int = 10) -> tuple[range, ...]:
    """Windows of consecutive steps of 0 .. num_steps - 1, which begin at 0 and at 10^(i / per_decade); the last one ends with the run.

    Each has `width` steps, fewer where the next begins before: no step is in two.

    >>> log_windows(100, per_decade=1)
    (range(0, 1), range(1, 10), range(10, 20), range(90, 100))
    """
    for name, value in (("num_steps", num_steps), ("per_decade", per_decade), ("width", width)):
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, got {value}")
    last = max(0, num_steps - width)
    starts, power = {0, last}, 0
    while (start := int(10 ** (power / per_decade) + 1e-9)) < last:
        starts.add(start)
        power += 1
    ordered = sorted(starts)
    return tuple(range(start, min(start + width, stop)) for start, stop in zip(ordered, [*ordered[1:], num_steps]))


def step_sums(
    model: nn.Module,
    unit_loss: UnitLoss,
    batch: tuple[Tensor, Tensor],
    *,
    mask: Tensor | None = None,
    num_probes: int = 1,
    seed: int = 0,
    num_at_once: int | None = None,
    trained: tuple[Tensor, Sequence[Tensor | None]] | None = None,
    known: Network | None = None,
) -> Tensor:
    """What a `PositionWindow` needs of one batch, (7,), float64, left on the device: numbers of units, their squares by cluster, and the
    sums of ||u||^2, of ||J^T v||^2, of the whole gradient squared, of the clusters' gradients squared, and of the losses.

    A forward pass and 1 + `num_probes` backward passes for the squared norms of the clusters' gradients (the U-statistic over all pairs
    of clusters) and of their probes, `num_at_once` clusters together; and one more of each for outputs and gradient, unless `trained`
    gives those of this batch and its mean loss, as a training step has them. `known`: what `entk.norms.network` found out of the model,
    which is then not checked again. Give each step another `seed`, as equal ones give equal probes, whose errors do not average out.
    Over the ranks of a DistributedDataParallel model gradients are summed, then squared. Raises what `lnp` does, but does not look
    whether losses are finite.
    """
    plain, group = unwrap(model)
    pair = Batch.of("the batch", batch, mask)
    with checks.as_found(plain, (pair.inputs,), None) if known is None else contextlib.nullcontext():
        seen = known or network(plain, pair.inputs)
        outputs, gradients = trained or _outputs_and_gradient(plain, unit_loss, pair, num_at_once)
        found = residuals(unit_loss, outputs, pair.targets, mask)
        generator = torch.Generator(outputs.device).manual_seed(1_000_003 * seed + rank(group))
        probes = balanced_probes(num_probes, outputs, len(outputs), generator) * found.valid[..., None]
        cotangents = torch.cat([found.gradient.to(outputs.dtype)[None], probes])
        norms_RB = _norms(seen, pair.inputs, cotangents, outputs, num_at_once or len(outputs))
    rows = (found.units_B, found.units_B.square(), found.energy_B, norms_RB[1:].mean(0), norms_RB[0], found.loss_B)
    parts = torch.stack(rows).sum(1)
    wide = [_wide(value) for value in gradients if value is not None]
    if group is not None:
        wide = sum_over_ranks([value * parts[0].to(value.dtype) for value in wide], group)
    square = _square(wide) * (1.0 if group is not None else parts[0] ** 2)
    units, squared_units, energy, trace, of_clusters, loss = sum_over_ranks([parts], group)[0]
    return torch.stack([units, squared_units, energy, trace, square, of_clusters, loss])


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPosition:
    """Means over the steps of a window, weighted by units, and chi_pos as ratio of means; errors from leaving out steps, NaN for one.

    `*_self`: of the gradients of whole batches; chi_pos_self exceeds chi_pos by about `kappa_over_units`, kappa / N.
    """

    mean_loss: float
    chi_loss: float
    chi_net: float
    chi_pos: float
    delta_loss: float
    chi_pos_self: float
    delta_loss_self: float
    kappa_over_units: float
    chi_loss_standard_error: float
    chi_net_standard_error: float
    chi_pos_standard_error: float
    delta_loss_standard_error: float
    num_units: int
    num_steps: int


@dataclass(slots=True)
class PositionWindow:
    """Collects `step_sums` of consecutive steps; `state` and `of_state` carry it over an interruption.

    `pool_size`: number n of clusters (of equal sizes) from which each batch was drawn without replacement, such as the training set;
    None: they are drawn from a distribution. Two clusters of a finite pool are less alike than independent ones: the mean of S_i . S_j is
    (n ||g||^2 - m) / (n - 1), with the pool's gradient g and the mean m of ||S_i||^2. So with U of the pairs, U + (m - U) / n is the
    estimate of ||g||^2 without bias; U alone falls below zero where a network fits its training set.

    >>> window, model, loss = PositionWindow(), nn.Linear(3, 2), nn.CrossEntropyLoss(reduction="none")
    >>> for seed in range(5):
    ...     window.add(step_sums(model, loss, (torch.randn(8, 3), torch.randint(2, (8,))), seed=seed))
    >>> window.result().num_units
    40
    """

    steps: list[Tensor] = field(default_factory=list)
    pool_size: int | None = None

    def add(self, sums: Tensor) -> None:
        """The sums (7,) of one step."""
        self.steps.append(sums)

    def state(self) -> list[list[float]]:
        """Plain numbers; reads them from the device."""
        return torch.stack(self.steps).tolist() if self.steps else []

    @classmethod
    def of_state(cls, state: list[list[float]], pool_size: int | None = None) -> "PositionWindow":
        """The window that gave this state."""
        return cls([torch.tensor(sums, dtype=torch.float64) for sums in state], pool_size)

    def result(self) -> WindowPosition:
        """The estimate of the steps so far; ConfigError where there are none."""
        if not self.steps:
            raise ConfigError("the window holds no step; add the step_sums of at least one")
        sums_T = torch.stack([sums.cpu() for sums in self.steps], dim=1)
        sums_T = sums_T[:, sums_T[0] > 0]
        terms_T = _terms(sums_T, self.pool_size)
        whole = _ratios(terms_T.sum(-1))
        others_T = _ratios(terms_T.sum(-1, keepdim=True) - terms_T)
        errors = jackknife_variance(whole, others_T, sums_T[0]).sqrt().tolist()
        chi_loss, chi_net, chi_pos, delta_loss, chi_pos_self, delta_loss_self = whole.tolist()
        inflation = float((sums_T[5] / sums_T[0]).sum() / sums_T[0].sum())
        return WindowPosition(
            mean_loss=float(sums_T[6].sum() / sums_T[0].sum()),
            chi_loss=chi_loss,
            chi_net=chi_net,
            chi_pos=chi_pos,
            delta_loss=delta_loss,
            chi_pos_self=chi_pos_self,
            delta_loss_self=delta_loss_self,
            kappa_over_units=inflation / (chi_loss * chi_net) if chi_loss * chi_net > 0 else math.nan,
            chi_loss_standard_error=errors[0],
            chi_net_standard_error=errors[1],
            chi_pos_standard_error=errors[2],
            delta_loss_standard_error=errors[3],
            num_units=int(sums_T[0].sum()),
            num_steps=sums_T.shape[1],
        )


class PositionAccumulator:
    """delta_loss without bias from the gradients that an accumulation makes anyway: add each micro-batch's mean gradient.

    Holds one gradient; nothing is read from the device until a property is asked for. `unbiased` is
    (||sum w G||^2 - sum ||w G||^2) / (1 - sum w^2) with weights w by units, `biased` the squared norm of the whole mean gradient.

    >>> accumulator = PositionAccumulator()
    >>> for value in (1.0, 3.0):
    ...     accumulator.add([torch.tensor([value])], num_units=4)
    >>> accumulator.unbiased, accumulator.biased, accumulator.num_units
    (3.0, 4.0, 8)
    """

    def __init__(self) -> None:
        self.num_units = 0
        self.num_micro_batches = 0
        self._squared_units = 0
        self._sums: list[Tensor] = []
        self._squares: list[Tensor] = []

    def add(self, gradient: Mapping[str, Tensor] | Iterable[Tensor | None], num_units: int) -> None:
        """The gradient of a micro-batch's mean loss over `num_units` units: tensors in one order, None where a parameter had no part."""
        given = list(gradient.values() if isinstance(gradient, Mapping) else gradient)
        device = next((value.device for value in given if value is not None), None)
        tensors = [torch.zeros((), device=device) if value is None else _wide(value.detach()) for value in given]
        if self._sums and len(tensors) != len(self._sums):
            raise ConfigError(f"each gradient must have the same tensors, got {len(tensors)} after {len(self._sums)}")
        if num_units < 0:
            raise ConfigError(f"num_units must not be negative, got {num_units}")
        if num_units == 0:
            return
        self._sums = self._sums or [torch.zeros((), dtype=value.dtype, device=value.device) for value in tensors]
        self._sums = [total + num_units * value for total, value in zip(self._sums, tensors)]
        self._squares.append(num_units**2 * _square(tensors))
        self.num_units += num_units
        self._squared_units += num_units**2
        self.num_micro_batches += 1

    def sum_over_ranks(self, group: Any = None) -> "PositionAccumulator":
        """That of all ranks of a process group (None: all there are), each with at least one micro-batch; sums first, then squares."""
        result = PositionAccumulator()
        chosen = torch.distributed.group.WORLD if group is None else group
        result._sums = sum_over_ranks([total.clone() for total in self._sums], chosen)
        counts = torch.tensor(
            [self.num_units, self._squared_units, self.num_micro_batches], dtype=torch.float64, device=self._sums[0].device
        )
        squares, counts = sum_over_ranks([torch.stack(self._squares).sum(), counts], chosen)
        result._squares = [squares]
        result.num_units, result._squared_units, result.num_micro_batches = (int(count) for count in counts.tolist())
        return result

    @property
    def unbiased(self) -> float:
        """||E G||^2 without bias; NaN for one micro-batch."""
        pairs = self.num_units**2 - self._squared_units
        return float(_square(self._sums) - torch.stack(self._squares).sum()) / pairs if pairs > 0 else float("nan")

    @property
    def biased(self) -> float:
        """||grad L||^2 of all micro-batches together; NaN for none."""
        return float(_square(self._sums)) / self.num_units**2 if self.num_units else float("nan")


def _outputs_and_gradient(model: nn.Module, unit_loss: UnitLoss, batch: Batch, num_at_once: int | None) -> tuple[Tensor, list[Tensor]]:
    """Outputs, and the gradient of the mean loss over valid units."""
    weights, kept, gradients, units = trainable(model), [], [], []
    for first in range(0, len(batch.inputs), num_at_once or len(batch.inputs)):
        part = batch.rows(slice(first, first + (num_at_once or len(batch.inputs))))
        with torch.enable_grad():
            outputs = checks.outputs(model(part.inputs))
        found = residuals(unit_loss, outputs, part.targets, part.mask)
        kept.append(outputs.detach())
        units.append(found.units_B.sum())
        gradients.append(torch.autograd.grad(outputs, weights, found.gradient.to(outputs.dtype), allow_unused=True, materialize_grads=True))
    num_units = torch.stack(units).sum()
    return torch.cat(kept), [sum(map(_wide, values), torch.zeros(())) / num_units for values in zip(*gradients)]


def _norms(seen: Network, inputs_B: Tensor, cotangents_RB: Tensor, outputs: Tensor, num_at_once: int) -> Tensor:
    """Squared norms (R, B) of all weights together."""
    known = outputs if num_at_once >= len(outputs) else None
    parts = zip(inputs_B.split(num_at_once), cotangents_RB.split(num_at_once, dim=1))
    found = [torch.stack(list(norms_by_parameter(seen, part, cotangents, known).values())).sum(0) for part, cotangents in parts]
    return torch.cat(found, dim=1).to(torch.float64)


def _terms(sums_T: Tensor, pool_size: int | None) -> Tensor:
    """(units, and units times chi_loss, chi_net, delta_loss, self delta_loss) of each step."""
    units, squared_units, energy, trace, square, of_clusters, _ = sums_T
    pairs = units.square() - squared_units
    delta_loss = torch.where(pairs > 0, (square - of_clusters) / pairs, torch.nan)
    if pool_size is not None:
        delta_loss = delta_loss + (of_clusters / squared_units - delta_loss) / pool_size
    return torch.stack([units, energy, trace, units * delta_loss, square / units])


def _ratios(terms: Tensor) -> Tensor:
    """(chi_loss, chi_net, chi_pos, delta_loss, self chi_pos, self delta_loss) of summed terms."""
    chi_loss, chi_net, delta_loss, own = (torch.where(terms[0] > 0, term / terms[0], torch.nan) for term in terms[1:])
    product = chi_loss * chi_net
    positions = (torch.where(product > 0, value / product, torch.nan) for value in (delta_loss, own))
    return torch.stack([chi_loss, chi_net, next(positions), delta_loss, next(positions), own])


def _wide(value: Tensor) -> Tensor:
    """At least in float32."""
    return value.to(torch.promote_types(value.dtype, torch.float32))


def _square(tensors: list[Tensor]) -> Tensor:
    flat = [value.flatten() for value in tensors]
    return torch.stack([torch.dot(value, value) for value in flat]).to(torch.float64).sum()
