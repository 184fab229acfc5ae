"""From sums over blocks of clusters to chi_loss, chi_net, chi_pos and delta_loss with their standard errors (D2, D3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

# K blocks of clusters; L rows: all layers together, then each tensor of parameters; R probes; Q quantities

CHI_LOSS, CHI_NET, CHI_POS, DELTA_LOSS = range(4)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Sums over the valid units of each block, float64 on the CPU. With S_k the gradient of a block's summed loss:

    energy_K: sum ||u_n||^2. traces_LRK: sum ||J_n^T v||^2. squares_LK: ||S_k||^2. overlaps_LK: S_k . S, where S is the sum over all
    blocks, or over those of another batch. cluster_squares_K: the sum of the squared numbers of units of its clusters.
    """

    units_K: Tensor
    clusters_K: Tensor
    cluster_squares_K: Tensor
    loss_K: Tensor
    energy_K: Tensor
    traces_LRK: Tensor
    squares_LK: Tensor
    overlaps_LK: Tensor

    def trace_LK(self) -> Tensor:
        """Mean over probes."""
        return self.traces_LRK.mean(1)


@dataclass(frozen=True, slots=True)
class Estimates:
    """Values and standard errors (Q, L), Q being CHI_LOSS, CHI_NET, CHI_POS and DELTA_LOSS; NaN where there is none."""

    values_QL: Tensor
    errors_QL: Tensor


def unbiased(blocks: Blocks, pool_size: int | None = None) -> Estimates:
    """delta_loss as U-statistic of the blocks, which have unequal numbers n_k of units:

    sum_{k != l} S_k . S_l / sum_{k != l} n_k n_l = (||S||^2 - sum ||S_k||^2) / (N^2 - sum n_k^2),
    i.e. (||sum w G||^2 - sum ||w G||^2) / (1 - sum w^2) for mean gradients G_k and weights w_k = n_k / N. Its expectation is
    ||E G||^2 for blocks that are independent, where a unit's mean gradient does not depend on how many units its block has. Standard
    errors by leaving out one block after the other; where the gradient vanishes they are too large by up to sqrt(2).

    `pool_size`: clusters of a finite pool from which these were drawn without replacement, with gradient g. The mean U over pairs of
    clusters is then ||g||^2 - (m - ||g||^2) / (pool_size - 1), with the pool's mean m of ||S_i||^2 over clusters i of one unit each, so
    that U + (m - U) / pool_size has no bias; m - U is (sum ||S_k||^2 - U sum n_k^2) / sum_i n_i^2.
    """
    n, e, t, s, c = blocks.units_K, blocks.energy_K, blocks.trace_LK(), blocks.squares_LK, blocks.overlaps_LK
    total, totals = (n.sum(), (n * n).sum(), blocks.cluster_squares_K.sum(), e.sum()), (t.sum(1), s.sum(1), c.sum(1))
    whole = _unbiased(pool_size, *total, *totals)
    others = _unbiased(
        pool_size,
        *(sum_ - part for sum_, part in zip(total, (n, n * n, blocks.cluster_squares_K, e))),
        *(sum_[:, None] - part for sum_, part in zip(totals, (t, s, 2 * c - s))),
    )
    return Estimates(whole, jackknife_variance(whole, others, n).sqrt())


def crossed(one: Blocks, two: Blocks) -> Estimates:
    """delta_loss = G_1 . G_2 of two disjoint batches (the overlaps of each are with the other), and the geometric means of the rest."""
    sums = [_plain_sums(blocks) for blocks in (one, two)]
    whole = _crossed(*sums[0], *sums[1], one.overlaps_LK.sum(1))
    variance = torch.zeros_like(whole)
    for left, right in ((one, two), (two, one)):
        units, energy, trace_L = _plain_sums(left)
        fixed, fixed_energy, fixed_trace_L = (value[..., None] for value in _plain_sums(right))
        rest = (units - left.units_K, energy - left.energy_K, trace_L[:, None] - left.trace_LK())
        others = _crossed(*rest, fixed, fixed_energy, fixed_trace_L, left.overlaps_LK.sum(1, keepdim=True) - left.overlaps_LK)
        variance = variance + jackknife_variance(whole, others, left.units_K)
    return Estimates(whole, variance.sqrt())


def self_delta_loss(blocks: Blocks) -> float:
    """||grad L||^2 of the whole batch."""
    return float(_ratio(blocks.overlaps_LK[0].sum(), blocks.units_K.sum() ** 2))


def probe_error(blocks: Blocks) -> float:
    """Standard error of chi_net on this very batch, from the spread of the probes; NaN for one probe, 0 where nothing is drawn."""
    num_probes = blocks.traces_LRK.shape[1]
    if num_probes < 2:
        return float("nan")
    return float((blocks.traces_LRK[0].var(0).sum() / num_probes).sqrt() / blocks.units_K.sum())


def jackknife_variance(whole: Tensor, others_K: Tensor, units_K: Tensor) -> Tensor:
    """Variance (...) of `whole` (...) from `others_K` (..., K), each without one block, of unequal sizes (Busing et al. 1999, eq. 9)."""
    num_blocks = len(units_K)
    if num_blocks < 2:
        return torch.full_like(whole, torch.nan)
    share_K = units_K / units_K.sum()
    pseudo_K = whole[..., None] / share_K - (1 / share_K - 1) * others_K
    mean = num_blocks * whole - ((1 - share_K) * others_K).sum(-1)
    return ((pseudo_K - mean[..., None]).square() / (1 / share_K - 1)).sum(-1) / num_blocks


def _unbiased(
    pool_size: int | None,
    units: Tensor,
    squared_units: Tensor,
    cluster_squares: Tensor,
    energy: Tensor,
    trace_L: Tensor,
    squares_L: Tensor,
    overlap_L: Tensor,
) -> Tensor:
    delta_loss_L = _ratio(overlap_L - squares_L, units * units - squared_units)
    if pool_size is not None:
        delta_loss_L = delta_loss_L + _ratio(squares_L - delta_loss_L * squared_units, cluster_squares) / pool_size
    return _stack(_ratio(energy, units), _ratio(trace_L, units), delta_loss_L)


def _crossed(
    units: Tensor, energy: Tensor, trace_L: Tensor, units_2: Tensor, energy_2: Tensor, trace_2L: Tensor, overlap_L: Tensor
) -> Tensor:
    both = units * units_2
    return _stack(_ratio(energy * energy_2, both).sqrt(), _ratio(trace_L * trace_2L, both).sqrt(), _ratio(overlap_L, both))


def _stack(chi_loss: Tensor, chi_net_L: Tensor, delta_loss_L: Tensor) -> Tensor:
    chi_pos_L = _ratio(delta_loss_L, chi_loss * chi_net_L)
    return torch.stack([chi_loss.expand_as(chi_net_L), chi_net_L, chi_pos_L, delta_loss_L])


def _plain_sums(blocks: Blocks) -> tuple[Tensor, Tensor, Tensor]:
    return blocks.units_K.sum(), blocks.energy_K.sum(), blocks.trace_LK().sum(1)


def _ratio(top: Tensor, bottom: Tensor) -> Tensor:
    """NaN where the denominator is zero: what has no value is not 0."""
    return torch.where(bottom > 0, top / bottom, torch.nan)
