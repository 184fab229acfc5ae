"""The loss-network-position decomposition of a gradient (D3): ||grad L||^2 = chi_loss . chi_net . chi_pos, with standard errors.

Nikolaou, Scheunemann, Krippendorf, Tovey, Holm, arXiv 2605.31244.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workers.entk import checks, position_blocks
from workers.entk.network import Network
from workers.entk.position_blocks import CHI_LOSS, CHI_NET, CHI_POS, DELTA_LOSS, Blocks, Estimates
from workers.entk.position_gradients import (
    Batch,
    BlockGradients,
    Preconditioner,
    block_gradients,
    dots,
    preconditioner_roots,
    squares,
    trainable,
)
from workers.entk.position_loss import UnitLoss, check_alone, check_finite, check_mask
from workers.entk.position_model import agreed, join_ranks, rank, sum_over_ranks, unwrap
from workers.entk.position_trace import METHODS, CrossCheck, choose, template_outputs, traces
from workers.errors import ConfigError

# N units; C outputs; B clusters; K blocks (micro-batches); L rows: all layers together, then each tensor of parameters; R probes

MAX_MICRO_BATCHES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPosition:
    """The share of one tensor of parameters: chi_net and delta_loss of all sum to the whole ones."""

    chi_net: float
    chi_pos: float
    delta_loss: float
    chi_net_standard_error: float
    chi_pos_standard_error: float
    delta_loss_standard_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """The decomposition on one batch of `num_units` units, or on a pair of batches (`cross`).

    chi_loss = (1/N) sum_n ||d l_n / d f_n||^2 and chi_net = (1/N) sum_n ||J_n||_F^2 do not depend on the size of the batch; the `*_raw`
    are those of the mean loss and the summed trace. delta_loss, with chi_pos = delta_loss / (chi_loss chi_net), is unbiased: the
    U-statistic over the micro-batches, or the product of two batches; it may be negative. `*_self` is ||grad L||^2 of the batch itself;
    its chi_pos exceeds the unbiased one by about `kappa_over_units` (sum ||g_b||^2 / N^2 over clusters, divided by chi_loss chi_net).

    Standard errors come from leaving out micro-batches and hold the spread of samples and probes, as estimates of a population;
    `chi_net_probe_error` is that of the probes alone. `cosine`: of the gradients of both batches, or of two halves of one.
    Numbers that have no value, such as a standard error from one micro-batch, are NaN.
    """

    chi_loss: float
    chi_net: float
    chi_pos: float
    delta_loss: float
    chi_loss_standard_error: float
    chi_net_standard_error: float
    chi_pos_standard_error: float
    delta_loss_standard_error: float
    chi_net_probe_error: float
    chi_loss_raw: float
    chi_net_raw: float
    delta_loss_self: float
    chi_pos_self: float
    kappa_over_units: float
    chi_pos_times_units_outputs: float
    cosine: float
    mean_loss: float
    num_units: int
    num_units_other: int | None
    num_outputs: int
    num_clusters: int
    num_micro_batches: int
    num_probes: int
    cross: bool
    method: str
    cross_check: CrossCheck
    layers: Mapping[str, LayerPosition]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    """How a batch is measured."""

    unit_loss: UnitLoss
    estimator: str
    num_probes: int
    num_micro_batches: int | None
    memory_gib: float
    roots_L: list[Tensor] | None
    generator: torch.Generator
    group: object
    known: Network | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """One batch on this rank, but for its totals, which are those of all ranks; half_L: of the even blocks."""

    gradients: BlockGradients
    traces_LRK: Tensor
    squares_LK: Tensor
    total_L: list[Tensor]
    half_L: list[Tensor]
    num_outputs: int
    method: str
    check: CrossCheck

    def overlaps_LK(self, total_L: list[Tensor]) -> Tensor:
        """S_k . S for each tensor of parameters."""
        return torch.stack([dots(rows_K, total) for rows_K, total in zip(self.gradients.gradients_LK, total_L)])


def lnp(
    model: nn.Module,
    unit_loss: UnitLoss,
    batch: tuple[Tensor, Tensor],
    other: tuple[Tensor, Tensor] | None = None,
    estimator: str = "auto",
    *,
    mask: Tensor | None = None,
    other_mask: Tensor | None = None,
    num_probes: int = 4,
    num_micro_batches: int | None = None,
    pool_size: int | None = None,
    preconditioner: Preconditioner | None = None,
    seed: int = 0,
    memory_gib: float = 2.0,
    known: Network | None = None,
) -> Position:
    """chi_loss, chi_net, chi_pos and delta_loss of a model on a batch (inputs, targets); with `other`, of a step on one, seen by the other.

    `model(inputs)` is (N, C), or (B, S, V): units are all axes but the last, clusters the first. `unit_loss(outputs, targets)` gives
    one loss per unit, of outputs (N, C) and targets (N, ...) with all units along one axis, such as
    CrossEntropyLoss(reduction="none"); one that fails on these is given all axes. Units that are not in `mask` (bool, units), or whose
    target is the loss's `ignore_index`, do not count.

    `estimator` of chi_net: "exact" (one backward pass per output of a cluster), "ghost" (`num_probes` random signs, independent
    for each cluster, and the squared norm of each cluster's gradient), "hutchinson" (the squared norm of a whole micro-batch: any
    layer), or "auto". `num_micro_batches` M: of clusters 0, M, 2M and so on; by default 16 or as many as there are clusters. Their
    gradients are held at once, within `memory_gib` or two.

    `pool_size` n: where the batch is some of the n clusters (of equal sizes) of a finite pool, drawn without replacement, and
    ||grad L||^2 of that pool is wanted, such as of a training set that the network nearly fits. delta_loss is then U + (m - U) / n, with
    the U-statistic U and the mean m of the clusters' squared gradients: U alone is too low by (m - ||grad L||^2) / (n - 1), since two
    clusters of a pool are less alike than independent ones. None: of the distribution that the clusters are drawn from.

    `preconditioner`: P by parameter's name, or a torch Adam whose 1 / (sqrt(v_hat) + eps) is taken; then delta_loss = g^T P g and
    chi_net = E ||P^(1/2) J^T v||^2. Equal seeds give equal probes. A DistributedDataParallel model is measured on the batches of all its
    ranks, which must all call this. Autocast acts as in training. Neither `.grad` nor the global random state is touched.

    `known`: what `entk.norms.network` found out of the model for inputs of this shape, which is then not looked at again.

    Raises ConfigError for a reduced loss, active dropout or batch statistics, a bad mask, estimator or pool; Diverged where the loss is not
    finite.

    >>> _ = torch.manual_seed(0)
    >>> model, loss = nn.Linear(5, 3), nn.CrossEntropyLoss(reduction="none")
    >>> d = lnp(model, loss, (torch.randn(64, 5), torch.randint(3, (64,))))
    >>> d.num_units, d.method, abs(d.delta_loss / (d.chi_loss * d.chi_net * d.chi_pos) - 1) < 1e-6
    (64, 'exact', True)
    """
    plain, group = unwrap(model)
    _check(estimator, num_probes, num_micro_batches, pool_size)
    checks.memory(memory_gib)
    if pool_size is not None and other is not None:
        raise ConfigError("pool_size is for one batch; two batches are taken as independent of each other: leave out one of the two")
    batches = [Batch.of("the batch", batch, mask)]
    batches += [Batch.of("the other batch", other, other_mask)] if other is not None else []
    generator = torch.Generator(batches[0].inputs.device).manual_seed(1_000_003 * seed + rank(group))
    roots_L = preconditioner_roots(plain, preconditioner)
    if roots_L is not None and estimator in ("exact", "ghost"):
        raise ConfigError(f'a preconditioner needs estimator="hutchinson" or "auto", got {estimator!r}')
    options = _Options(
        unit_loss=unit_loss,
        estimator="hutchinson" if roots_L is not None else estimator,
        num_probes=num_probes,
        num_micro_batches=num_micro_batches,
        memory_gib=memory_gib,
        roots_L=roots_L,
        generator=generator,
        group=group,
        known=known,
    )
    with checks.as_found(plain, (batches[0].inputs,), None):
        one, *two = [_measure(plain, each, options) for each in batches]
    return _position(plain, one, two[0] if two else None, group, pool_size)


def _check(estimator: str, num_probes: int, num_micro_batches: int | None, pool_size: int | None) -> None:
    checks.one_of("estimator", estimator, METHODS)
    checks.count("num_probes", num_probes)
    for name, value in (("num_micro_batches", num_micro_batches), ("pool_size", pool_size)):
        if value is not None:
            checks.count(name, value)


def _measure(model: nn.Module, batch: Batch, options: _Options) -> _Measured:
    """All sums of a batch; one pass per micro-batch, then the passes for chi_net."""
    checks.place(model, (batch.inputs,))
    num_clusters = len(batch.inputs)
    num_blocks = _num_blocks(model, num_clusters, options)
    like = template_outputs(model, batch.inputs)
    if options.known is None:
        _check_alone(model, options.unit_loss, batch)
    check_mask(batch.mask, like.shape[:-1])
    method, check, known = choose(
        options.estimator,
        model,
        batch.inputs,
        like,
        num_probes=options.num_probes,
        single=num_blocks == num_clusters,
        generator=options.generator,
        known=options.known,
    )
    # arrays of all ranks are put together, and one rank's clusters may be few
    method = agreed(method, "hutchinson", options.group)
    plain_probes = options.num_probes if method == "hutchinson" else 0
    found = block_gradients(
        model,
        options.unit_loss,
        batch,
        num_blocks=num_blocks,
        num_probes=plain_probes,
        roots_L=options.roots_L,
        generator=options.generator,
    )
    by_block = found.traces_LRK
    if by_block is None:
        probes = options.num_probes
        by_cluster = traces(method, model, batch.inputs, like, found.valid, num_probes=probes, generator=options.generator, known=known)
        by_block = _blockwise(by_cluster, num_blocks)
    total_L = sum_over_ranks([rows_K.sum(0) for rows_K in found.gradients_LK], options.group)
    return _Measured(
        gradients=found,
        traces_LRK=by_block,
        squares_LK=torch.stack([squares(rows_K) for rows_K in found.gradients_LK]),
        total_L=total_L,
        half_L=sum_over_ranks([rows_K[::2].sum(0) for rows_K in found.gradients_LK], options.group),
        num_outputs=like.shape[-1],
        method=method,
        check=check,
    )


def _check_alone(model: nn.Module, unit_loss: UnitLoss, batch: Batch) -> None:
    """Neither outputs nor losses may depend on the clusters beside one."""
    inputs, targets = checks.chosen((batch.inputs, batch.targets), checks.spread(len(batch.inputs)))
    with torch.no_grad():
        outputs = checks.outputs(model(inputs))
    checks.finite(outputs, dict(model.named_parameters()))
    checks.independent(lambda samples: checks.outputs(model(*samples)), (batch.inputs,), model.parameters())
    check_alone(unit_loss, outputs, targets)


def _num_blocks(model: nn.Module, num_clusters: int, options: _Options) -> int:
    most = options.num_micro_batches or MAX_MICRO_BATCHES
    if options.num_micro_batches is None:
        gib = sum(weights.numel() * max(4, weights.element_size()) for weights in trainable(model)) / 2**30
        most = max(2, min(most, int(options.memory_gib / gib)))
    return min(most, num_clusters)


def _blocks(measured: _Measured, total_L: list[Tensor], group: object) -> Blocks:
    """The sums of all ranks; a first row holds all layers together."""
    found, num_blocks = measured.gradients, measured.squares_LK.shape[1]
    sums = join_ranks(
        {
            "units_K": _blockwise(found.units_B, num_blocks),
            "clusters_K": _blockwise((found.units_B > 0).to(torch.float64), num_blocks),
            "cluster_squares_K": _blockwise(found.units_B.square(), num_blocks),
            "loss_K": _blockwise(found.loss_B, num_blocks),
            "energy_K": _blockwise(found.energy_B, num_blocks),
            "traces_LRK": _with_total(measured.traces_LRK),
            "squares_LK": _with_total(measured.squares_LK),
            "overlaps_LK": _with_total(measured.overlaps_LK(total_L)),
        },
        group,
    )
    # blocks whose units are all masked say nothing
    kept = sums["units_K"] > 0
    return Blocks(**{name: values[..., kept] for name, values in sums.items()})


def _position(model: nn.Module, one: _Measured, two: _Measured | None, group: object, pool_size: int | None) -> Position:
    blocks = _blocks(one, one.total_L, group)
    if pool_size is not None and pool_size < blocks.clusters_K.sum():
        raise ConfigError(f"pool_size must be at least {int(blocks.clusters_K.sum())}, the clusters of the batch, got {pool_size}")
    own = position_blocks.unbiased(blocks)
    estimates, units_other, cosine = position_blocks.unbiased(blocks, pool_size), None, _half_cosine(one)
    if two is not None:
        left, right = _blocks(one, two.total_L, group), _blocks(two, one.total_L, group)
        estimates, units_other = position_blocks.crossed(left, right), int(right.units_K.sum())
        cosine = _cosine(one.total_L, two.total_L)
    return _result(model, blocks, own, estimates, units_other, cosine, one)


def _result(
    model: nn.Module, blocks: Blocks, own: Estimates, estimates: Estimates, units_other: int | None, cosine: float, one: _Measured
) -> Position:
    values, errors = estimates.values_QL[:, 0].tolist(), estimates.errors_QL[:, 0].tolist()
    num_units, num_outputs = int(blocks.units_K.sum()), one.num_outputs
    mean_units = num_units if units_other is None else math.sqrt(num_units * units_other)
    mean_loss = float(blocks.loss_K.sum() / num_units) if num_units else math.nan
    if num_units:
        check_finite(mean_loss)
    delta_self, product = position_blocks.self_delta_loss(blocks), float(own.values_QL[CHI_LOSS, 0] * own.values_QL[CHI_NET, 0])
    same_cluster = 1 - float(blocks.cluster_squares_K.sum()) / num_units**2 if num_units else math.nan
    inflation = delta_self - same_cluster * float(own.values_QL[DELTA_LOSS, 0])
    return Position(
        chi_loss=values[CHI_LOSS],
        chi_net=values[CHI_NET],
        chi_pos=values[CHI_POS],
        delta_loss=values[DELTA_LOSS],
        chi_loss_standard_error=errors[CHI_LOSS],
        chi_net_standard_error=errors[CHI_NET],
        chi_pos_standard_error=errors[CHI_POS],
        delta_loss_standard_error=errors[DELTA_LOSS],
        chi_net_probe_error=0.0 if one.method == "exact" else position_blocks.probe_error(blocks),
        chi_loss_raw=values[CHI_LOSS] / mean_units if num_units else math.nan,
        chi_net_raw=values[CHI_NET] * mean_units,
        delta_loss_self=delta_self,
        chi_pos_self=delta_self / product if product > 0 else math.nan,
        kappa_over_units=inflation / product if product > 0 else math.nan,
        chi_pos_times_units_outputs=values[CHI_POS] * mean_units * num_outputs,
        cosine=cosine,
        mean_loss=mean_loss,
        num_units=num_units,
        num_units_other=units_other,
        num_outputs=num_outputs,
        num_clusters=int(blocks.clusters_K.sum()),
        num_micro_batches=len(blocks.units_K),
        num_probes=0 if one.method == "exact" else blocks.traces_LRK.shape[1],
        cross=units_other is not None,
        method=one.method,
        cross_check=one.check,
        layers=_layers(model, estimates),
    )


def _layers(model: nn.Module, estimates: Estimates) -> dict[str, LayerPosition]:
    names = [name for name, weights in model.named_parameters() if weights.requires_grad]
    values_LQ, errors_LQ = estimates.values_QL.T.tolist()[1:], estimates.errors_QL.T.tolist()[1:]
    return {
        name: LayerPosition(
            chi_net=value[CHI_NET],
            chi_pos=value[CHI_POS],
            delta_loss=value[DELTA_LOSS],
            chi_net_standard_error=error[CHI_NET],
            chi_pos_standard_error=error[CHI_POS],
            delta_loss_standard_error=error[DELTA_LOSS],
        )
        for name, value, error in zip(names, values_LQ, errors_LQ)
    }


def _half_cosine(measured: _Measured) -> float:
    rest_L = [total - half for total, half in zip(measured.total_L, measured.half_L)]
    return _cosine(measured.half_L, rest_L)


def _cosine(one_L: list[Tensor], two_L: list[Tensor]) -> float:
    """NaN where a gradient is zero."""
    found = [sum(dots(one[None], two)[0] for one, two in zip(a_L, b_L)) for a_L, b_L in ((one_L, two_L), (one_L, one_L), (two_L, two_L))]
    cross, first, second = torch.stack(found).tolist()  # type: ignore[arg-type]
    return cross / math.sqrt(first * second) if first > 0 and second > 0 else math.nan


def _blockwise(values_B: Tensor, num_blocks: int) -> Tensor:
    """Sums (..., K) of values (..., B) over the clusters of each block."""
    return torch.stack([values_B[..., block::num_blocks].sum(-1) for block in range(num_blocks)], dim=-1)


def _with_total(values_L: Tensor) -> Tensor:
    return torch.cat([values_L.sum(0, keepdim=True), values_L])
